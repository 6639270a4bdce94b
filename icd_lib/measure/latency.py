"""Latency of several arms, interleaved in one process so that drift of the machine hits all of them alike."""

import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from icd_lib.errors import MeasureError

Name = TypeVar("Name", bound=Hashable)
# Calls, and nanoseconds for which each is called untimed before, unless it takes longer → nanoseconds of each.
TimeRound = Callable[[list[Callable[[], object]], int], list[int]]
SETTLE_MS = 20.0  # after which a short call takes what it takes alone (docs/DECISIONS.md)


def measure_interleaved(
    arms: Mapping[Name, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    time_round: TimeRound | None = None,
    settle_ms: float = 0.0,
) -> dict[Name, np.ndarray]:
    """Time every arm once per round: arm -> float64 array of shape (repeats,) in ms, one entry per round.

    Each round visits the arms in its own random order (from `seed`), so that samples of one round are pairs and no arm
    always follows the same other one. `warmup` rounds run first and are not kept. The garbage collector is off within a
    round. With `settle_ms`, an arm that takes less is called untimed for so long before its timed call: else a short
    call pays for the arm before it, whose threads still spin and whose weights fill the caches. For an A/A control give
    the same callable under two names. `progress(done, total)` is called after each round (warm-up included), outside
    the timed region. `time_round` times the calls of a round (default: by this process's clock). Raises MeasureError
    when there is nothing to measure.
    """
    if not arms or repeats < 1 or warmup < 0:
        raise MeasureError(
            f"expected at least one arm, repeats >= 1 and warmup >= 0; got {len(arms)} arms, "
            f"repeats {repeats}, warmup {warmup}"
        )
    names = list(arms)
    rng = np.random.default_rng(seed)
    elapsed_ns = np.zeros((len(names), repeats), dtype=np.int64)
    time_round = time_round or _time_round
    for round_index in range(-warmup, repeats):
        order = rng.permutation(len(names))
        with _uncollected():
            durations = time_round([arms[names[i]] for i in order], int(settle_ms * 1e6))
        if round_index >= 0:
            elapsed_ns[order, round_index] = durations
        if progress is not None:
            progress(round_index + warmup + 1, repeats + warmup)
    return {name: elapsed_ns[i] / 1e6 for i, name in enumerate(names)}


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is collected within."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _time_round(callables: list[Callable[[], object]], settle_ns: int) -> list[int]:
    """Nanoseconds of each call, one after the other.

    A call that takes less than `settle_ns` is made again until so much time has passed; the last one counts.
    """
    durations = []
    for call in callables:
        end = time.perf_counter_ns() + settle_ns
        while True:
            start = time.perf_counter_ns()
            call()
            now = time.perf_counter_ns()
            if now >= end:
                break
        durations.append(now - start)
    return durations
