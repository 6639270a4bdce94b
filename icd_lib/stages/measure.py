"""Stage 03: every arm interleaved in one process, and what else is known of the arms."""

from collections.abc import Callable

from icd_lib.experiment.arms import DENSE
from icd_lib.measure.comparison import latency_entry
from icd_lib.records.decoding import DECODING
from icd_lib.records.generation import GENERATION
from icd_lib.records.measured import LADDER, MEASURED, Clocks, Measured, Timing
from icd_lib.run.artifacts import Run
from icd_lib.workloads import make_workload
from icd_lib.workloads.base import Workload
from icd_lib.workloads.timing import clock_state, held_clocks, time_arms


def run_stage(run: Run, progress: Callable[[str], None] = print) -> Measured:
    """Write measure/* and <arm>/metrics.json; returns what measure.json holds, as it is read back."""
    workload = make_workload(run, progress)
    with held_clocks(workload) as clocks:
        return _measure(run, workload, clocks)


def _measure(run: Run, workload: Workload, clocks: Clocks) -> Measured:
    compared, controls = workload.compared(), workload.controls()
    latency = measure_latency(workload, compared | controls, clocks)
    run.write_json(MEASURED, {"latency": latency, **workload.measured(compared, controls, latency)})
    report = run.read(Measured, MEASURED)
    for arm in compared:
        run.write_json(f"{arm}/metrics.json", metrics_of(workload, arm, report))
    run.write_json(LADDER, workload.ladder(compared))
    if (generation := workload.generation(compared)) is not None:
        run.write_json(GENERATION, generation)
    if (decoding := workload.decoding(compared, controls)) is not None:
        run.write_json(DECODING, decoding)
    return report


def measure_latency(workload: Workload, arms: dict[str, object], clocks: Clocks | None = None) -> dict:
    """Raw samples to measure/samples.json; per shape and arm the distribution and the paired change against dense."""
    shapes: dict[str, dict[str, Timing]] = {}
    raw, taken = {}, {}
    seed, resamples = workload.get("seed"), workload.get("measure.bootstrap")
    for timed in workload.timed(arms):
        samples, taken[timed.label] = time_arms(workload, timed)
        raw[timed.label] = {arm: ms.tolist() for arm, ms in samples.items()}
        shapes[timed.label] = {
            arm: latency_entry(ms, samples[DENSE], timed.items, seed, resamples, item=workload.item)
            for arm, ms in samples.items()
        }
    workload.run.write_json("measure/samples.json", {"unit": "ms", "order": "one per round", "shapes": raw})
    return {"threads": workload.threads, "shapes": shapes, "taken": taken, "clocks": clocks or clock_state(workload)}


def metrics_of(workload: Workload, arm: str, report: Measured) -> dict:
    """metrics.json of one arm (design section 8)."""
    run, label = workload.run, next(iter(report.latency.shapes))
    latency, setup = report.latency.first[arm], run.read_json("setup/setup.json")
    own = workload.metrics(arm, report)
    lost = own.pop("quality_drop_pp")
    return {
        "run_id": f"{run.scenario.name}-{run.scenario.sha256[:12]}",
        "scenario": run.scenario.name,
        "mode": arm,
        "model": setup["model"],
        "badges": setup["badges"],
        "shape": label,
        "latency_ms": latency.latency_ms,
        "throughput_tokens_per_s": latency.throughput_tokens_per_s,
        **own,
        "objective": run.read_json(f"{arm}/solve.json")["objective"]["mean"] if arm != DENSE else None,
        "vs_dense": {"latency_rel": latency.vs_dense, "quality_drop_pp": lost},
        "environment": setup["environment"],
        "config_sha256": run.scenario.sha256,
    }
