"""How the measuring stages take their time: enough rounds for the noise, and a record of what else the machine did."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from icd_lib.experiment.arms import DENSE, MODEL
from icd_lib.experiment.comparisons import pairs_to_see
from icd_lib.measure.clocks import locked_clocks
from icd_lib.measure.conditions import clocks_locked, warnings_of, watched
from icd_lib.measure.environment import is_virtualised
from icd_lib.measure.latency import SETTLE_MS
from icd_lib.measure.power import measure_until_clear
from icd_lib.progress import follow
from icd_lib.records.measured import Clocks
from icd_lib.records.verdict import Stability
from icd_lib.run.artifacts import Run
from icd_lib.workloads.base import Timed, Workload

DRIFT_LOCKED, DRIFT_UNLOCKED = 0.01, 0.05  # of the dense arm's median between the halves of the rounds


def settle_ms(run: Run) -> float:
    """For how long a model is called before a timed call, `measure_interleaved` says why; a quick run saves it."""
    return 0.0 if run.scenario.quick else SETTLE_MS


def time_arms(workload: Workload, timed: Timed) -> tuple[dict, dict]:
    """Samples of every arm (ms), and {"power", "conditions", "warnings"} of taking them."""
    get, label = workload.get, timed.words
    with watched() as conditions:
        samples, power = measure_until_clear(
            dict(timed.runners),
            pairs_to_see(workload.lays_out),
            repeats=get("measure.repeats"),
            max_repeats=get("measure.max_repeats"),
            effect=get("measure.detect_rel"),
            warmup=get("measure.warmup"),
            seed=get("seed"),
            resamples=get("measure.bootstrap"),
            progress=follow(workload.progress, label),
            say=workload.progress,
            settle_ms=settle_ms(workload.run) if workload.lays_out == MODEL else 0.0,
            time_round=timed.time_round,
        )
    warnings = warnings_of(conditions, power["rounds"])
    for warning in warnings:
        workload.progress(f"{label}: {warning}")
    return samples, {"power": power, "conditions": conditions, "warnings": warnings}


@contextmanager
def held_clocks(workload: Workload) -> Iterator[Clocks]:
    """The clocks that latency depends on; where the scenario asks for it, a GPU's are locked for the block."""
    if workload.is_on_gpu and workload.get("measure.clocks") == "fixed":
        with locked_clocks(workload.device) as clocks:
            workload.progress(f"clocks: {clocks.how or clocks.reason}")
            yield clocks
    else:
        yield clock_state(workload)


def clock_state(workload: Workload) -> Clocks:
    """The clock of what computes, as found; the scenario may say that it is not to be relied on."""
    asked = workload.get("measure.clocks")
    if asked == "unlocked":
        return Clocks(locked=False, reason="the scenario says so (measure.clocks)")
    if workload.is_on_gpu:
        return Clocks(locked=False, reason="a GPU's clocks are left alone; measure.clocks=fixed asks NVML to lock them")
    found = clocks_locked(virtualised=is_virtualised())
    if asked == "fixed" and not found.locked:
        return replace(found, reason=f"measure.clocks=fixed locks a GPU's, these are the processor's: {found.reason}")
    return found


def stability(samples: dict, clocks: Clocks) -> Stability:
    """Drift of the dense arm within the run.

    The tolerance is 1 % where clocks are fixed, 5 % where they are not.
    """
    drift = max((half_drift(arms[DENSE]) for arms in samples.values()), key=abs)
    tolerance = DRIFT_LOCKED if clocks.locked else DRIFT_UNLOCKED
    within = abs(drift) <= tolerance
    return Stability(latency_drift_rel=drift, tolerance_rel=tolerance, within=within, clocks=clocks)


def half_drift(ms: list[float]) -> float:
    """Median of the second half of the rounds relative to that of the first.

    >>> half_drift([2.0, 2.0, 3.0, 3.0])
    0.5
    """
    half = len(ms) // 2
    first, second = (sorted(part)[len(part) // 2] for part in (ms[:half], ms[half:]))
    return second / first - 1
