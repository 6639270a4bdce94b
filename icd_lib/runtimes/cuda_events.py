"""The clock of a CUDA device: events on its stream around the work, so that what is timed is the device's own time."""

from collections.abc import Callable

import torch


def time_round_on_device(callables: list[Callable[[], object]], device: str = "cuda") -> list[int]:
    """Nanoseconds between two events around each call, one after the other; for `measure_interleaved`.

    A call gives work to the current stream and need not wait for it. The device is idle when a call begins, so that
    where starting kernels takes longer than running them the time of starting them is what is seen: the latency of one
    call that finds the device free. Events resolve about half a microsecond.
    """
    durations = []
    with torch.cuda.device(device):  # events are of the current device, and of its stream
        for call in callables:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            end.synchronize()
            durations.append(round(start.elapsed_time(end) * 1e6))
    return durations
