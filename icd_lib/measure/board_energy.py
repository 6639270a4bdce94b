"""Energy of an NVIDIA board under several arms: interleaved windows between two idle ones, its state beside them."""

import time
from collections.abc import Callable, Collection, Mapping

import numpy as np

from icd_lib.measure.board import Recorder, integrated_rel, summarise_phase
from icd_lib.measure.energy import UNIT, energy_windows
from icd_lib.measure.statistics import mean_ci
from icd_lib.metric import Figure, figure
from icd_lib.records.counted import IDLE, BoardEnergy, BoardState, Reading

SETTLE_S = 1.0  # of an arm before each of its windows: clocks and temperature follow the load
SETTLING = "settling"


def seconds_of(arms: int, windows: int, window_s: float) -> float:
    """What `board_windows` takes at least."""
    return arms * windows * (window_s + SETTLE_S) + len(IDLE) * (window_s + SETTLE_S)


def board_windows(
    calls: Mapping[str, Callable[[], object]],
    tokens_per_call: int,
    counter,
    board,
    *,
    windows: int,
    window_s: float,
    seed: int = 0,
    keep: Callable[[list[Reading]], object] = lambda readings: None,
    settle_s: float = SETTLE_S,
    say: Callable[[str], None] = lambda phase: None,
) -> tuple[dict[str, list[float]], BoardEnergy]:
    """J per token of every arm (arm → (windows,), windows of one round are pairs), and how it was read.

    A call returns when the device has done its work. Before a window its arm runs untimed for `settle_s`. `keep` is
    given all readings of the board so far after each window, and where the measurement fails; `say` the arm whose
    window begins.

    Raises as `energy_windows`.
    """
    with Recorder(board) as recorder:

        def enter(arm: str) -> None:
            recorder.phase = SETTLING
            keep(list(recorder.readings))
            until = time.perf_counter() + settle_s
            while time.perf_counter() < until:
                calls[arm]()
            say(arm)
            recorder.phase = arm

        try:
            before = _idle_watts(counter, recorder, IDLE[0], window_s, settle_s)
            joules = energy_windows(
                calls, tokens_per_call, counter, windows=windows, window_s=window_s, seed=seed, enter=enter
            )
            after = _idle_watts(counter, recorder, IDLE[1], window_s, settle_s)
        finally:
            keep(recorder.readings)
    readings = recorder.readings
    phases = (IDLE[0], *calls, IDLE[1])
    return joules, BoardEnergy(
        counter=counter.name,
        windows=windows,
        window_s=window_s,
        settle_s=settle_s,
        idle_w={"before": before, "after": after},
        integrated_rel=integrated_rel(readings, list(calls)),
        board={phase: BoardState(**summarise_phase(readings, phase)) for phase in phases},
    )


def _idle_watts(counter, recorder: Recorder, phase: str, window_s: float, settle_s: float) -> Figure:
    """Mean power of one window in which nothing runs."""
    recorder.phase = SETTLING
    time.sleep(settle_s)
    recorder.phase = phase
    start_j, start = counter.joules(), time.perf_counter()
    time.sleep(window_s)
    watts = (counter.joules() - start_j) / (time.perf_counter() - start)
    recorder.phase = SETTLING
    return figure(watts, "W", "measured", n=1, method=f"{counter.name}, one idle window of {window_s:g} s")


def energy_figure(values: Collection[float], how: BoardEnergy) -> Figure:
    """J per token of an arm, the mean of its windows with Student's interval; its method says how it was read."""
    method = f"{how.counter}, the whole board and not the chip, idle power included; mean of interleaved windows of "
    method += "; ".join(filter(None, [f"{how.window_s:g} s", how.too_short, how.agreement]))
    mean = float(np.mean(list(values)))
    return figure(mean, UNIT, "measured", n=len(values), method=method, ci95=mean_ci(list(values)))
