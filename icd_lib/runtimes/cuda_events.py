"""The clock of a CUDA device: events on its stream around the work, so that what is timed is the device's own time."""

import time
from collections.abc import Callable

import torch


def time_round_on_device(callables: list[Callable[[], object]], settle_ns: int = 0, device: str = "cuda") -> list[int]:
    """Nanoseconds between two events around each call, one after the other; for `measure_interleaved`.

    A call that takes less than `settle_ns` is made again until so much time has passed, and the last one counts: what
    the device's cache holds then is this model's, as for a model that is used, and not the one's before it.

    A call gives work to the current stream and need not wait for it. The device is idle when a call begins, so that
    where starting kernels takes longer than running them the time of starting them is what is seen: the latency of one
    call that finds the device free. Events resolve about half a microsecond.
    """
    durations = []
    with torch.cuda.device(device):  # events are of the current device, and of its stream
        for call in callables:
            settled = time.perf_counter_ns() + settle_ns
            while True:
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda.synchronize()
                start.record()
                call()
                end.record()
                end.synchronize()
                if time.perf_counter_ns() >= settled:
                    break
            durations.append(round(start.elapsed_time(end) * 1e6))
    return durations
