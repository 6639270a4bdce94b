"""Latency of several arms, interleaved in one process so that drift of the machine hits all of them alike."""

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from icd_lib.errors import MeasureError

Name = TypeVar("Name", bound=Hashable)


def measure_interleaved(
    arms: Mapping[Name, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 8,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    time_round: Callable[[list[Callable[[], object]]], list[int]] | None = None,
) -> dict[Name, np.ndarray]:
    """Time every arm once per round: arm -> float64 array of shape (repeats,) in ms, one entry per round.

    Each round visits the arms in its own random order (from `seed`), so that samples of one round are pairs and no arm
    always follows the same other one. `warmup` rounds run first and are not kept. The garbage collector is off within a
    round. For an A/A control give the same callable under two names. `progress(done, total)` is called after each round
    (warm-up included), outside the timed region. `time_round` gives the nanoseconds of each call of a round (default:
    by this process's clock). Raises MeasureError when there is nothing to measure.
    """
    if not arms or repeats < 1 or warmup < 0:
        raise MeasureError(
            f"expected at least one arm, repeats >= 1 and warmup >= 0; got {len(arms)} arms, "
            f"repeats {repeats}, warmup {warmup}"
        )
    names = list(arms)
    rng = np.random.default_rng(seed)
    elapsed_ns = np.zeros((len(names), repeats), dtype=np.int64)
    for round_index in range(-warmup, repeats):
        order = rng.permutation(len(names))
        durations = (time_round or _time_round)([arms[names[i]] for i in order])
        if round_index >= 0:
            elapsed_ns[order, round_index] = durations
        if progress is not None:
            progress(round_index + warmup + 1, repeats + warmup)
    return {name: elapsed_ns[i] / 1e6 for i, name in enumerate(names)}


def _time_round(callables: list[Callable[[], object]]) -> list[int]:
    """Nanoseconds of each call, one after the other, without garbage collection in between."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        durations = []
        for call in callables:
            start = time.perf_counter_ns()
            call()
            durations.append(time.perf_counter_ns() - start)
    finally:
        if was_enabled:
            gc.enable()
    return durations
