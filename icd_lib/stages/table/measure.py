"""Stage 03 of a table: every arm interleaved on the clock, its caches simulated, its energy modelled."""

from collections.abc import Callable

import numpy as np

from icd_lib.errors import MeasureError
from icd_lib.experiment.arms import ARMS, DENSE, RESULT, ROWS
from icd_lib.measure.comparison import latency_entry
from icd_lib.metric import figure, not_measured
from icd_lib.run.artifacts import Run
from icd_lib.stages.table.arms import Arm, compared_arms, control_arms
from icd_lib.stages.table.context import SAME_WORK, TableContext
from icd_lib.stages.timing import clock_state, time_arms
from icd_lib.workloads.rows import address_stream, simulate_table

# What is timed, always on the unseen events; the first is the one that is judged.
SHAPES = {
    "chained": "each read waits for the one before it, so that its latency shows",
    "overlapped": "reads are independent and the processor overlaps them",
}
NO_METER = "the table is a few megabytes in a process of many; its bytes are counted instead"


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write measure/* and <arm>/metrics.json; returns {"latency", "quality", "equality", "sizes", "caches", ...}."""
    context = TableContext(run, progress)
    compared = compared_arms(context)
    extra = control_arms(context)
    arms = compared | extra
    latency, checksums = measure_latency(context, arms)
    caches = {name: simulate_arms(context, arms, events) for name, events in context.streams.items()}
    progress("caches simulated")
    row_bytes = context.get("workload.row_bytes")
    report = {
        "latency": latency,
        "quality": {"reason": SAME_WORK},
        "checksums": checksums,
        "equality": equality(checksums),
        "sizes": {
            name: arm.sizes(context.tile, row_bytes) | {"peak_memory_mb": not_measured("MB", NO_METER)}
            for name, arm in arms.items()
        },
        "caches": caches,
        "energy": {name: caches["unseen"][name]["energy_j_per_event"] for name in arms},
        "controls": {name: ARMS[name].words[ROWS] for name in extra},
        "shapes": SHAPES,
    }
    report["attribution"] = attribution(report) if RESULT in compared else None
    run.write_json("measure/measure.json", report)
    run.write_json("measure/ladder.json", None)
    for name in compared:
        run.write_json(f"{name}/metrics.json", metrics_of(run, name, report))
    return report


def measure_latency(context: TableContext, arms: dict[str, Arm]) -> tuple[dict, dict]:
    """Raw samples to measure/samples.json; per shape and arm the figures, and every arm's checksum."""
    unseen, seed = context.streams["unseen"], context.get("seed")
    shapes, raw, checksums, taken = {}, {}, {}, {}
    for label in SHAPES:
        runners = {name: arm.runner(context, unseen, chained=label == "chained") for name, arm in arms.items()}
        samples, taken[label] = time_arms(context, runners, f"{label} reads")
        raw[label] = {name: ms.tolist() for name, ms in samples.items()}
        shapes[label] = {
            name: latency_entry(ms, samples[DENSE], unseen.count, seed, context.get("measure.bootstrap"), item="event")
            for name, ms in samples.items()
        }
        checksums[label] = {name: f"{runner():.0f}" for name, runner in runners.items()}
    context.run.write_json("measure/samples.json", {"unit": "ms", "order": "one per round", "shapes": raw})
    return {"threads": 1, "shapes": shapes, "taken": taken, "clocks": clock_state(context)}, checksums


def equality(checksums: dict) -> dict:
    """Whether all arms with everything alive agree, and all arms with the mask; `MeasureError` when one does not."""
    whole = {DENSE, "dense_again", "permuted"}
    groups = {"nothing removed": [], "transformed": []}
    for label, sums in checksums.items():
        for name, checksum in sums.items():
            groups["nothing removed" if name in whole else "transformed"].append((label, name, checksum))
    for what, found in groups.items():
        odd = [entry for entry in found if entry[2] != found[0][2]]
        if odd:
            label, name, checksum = odd[0]
            raise MeasureError(
                f"arm {name} ({label}) has checksum {checksum}, the other arms with {what} have {found[0][2]}; "
                "its layout does not do the same work"
            )
    return {what: {"arms": sorted({name for _, name, _ in found}), "equal": True} for what, found in groups.items()}


def simulate_arms(context: TableContext, arms: dict[str, Arm], events) -> dict:
    """Hit rates (simulated) and energy per pass and per event (modelled) of every arm on one stream."""
    found = {}
    for name, arm in arms.items():
        figures = simulate_table(context.workload(events).keep(arm.alive), arm.rows, context.levels)
        joules = figures["energy_j"]
        per_event = figure(
            joules["value"] / events.count, "J/event", "modelled", n=joules["n"], method=joules["method"]
        )
        lines = lines_per_event(context, arm, events)
        found[name] = figures | {"energy_j_per_event": per_event, "lines_per_event": lines}
    return found


def lines_per_event(context: TableContext, arm: Arm, events) -> dict:
    """Figure: distinct cache lines that an event touches, mean over the events that touch any; counted."""
    left = context.workload(events).keep(arm.alive)
    line = context.levels[0].line_bytes
    first = address_stream(left, arm.rows) // line
    last = (address_stream(left, arm.rows) + left.row_bytes - 1) // line
    width = int((last - first).max()) + 1  # a row may lie on several lines
    touched = np.minimum(first[:, None] + np.arange(width), last[:, None])
    lines = int(last.max()) + 1
    event = left.events.event_of_access()
    distinct = np.unique((event[:, None] * lines + touched).ravel())
    count = len(np.unique(event))
    return figure(len(distinct) / count, "lines", "measured", n=count, method="counted")


def attribution(report: dict) -> list[dict]:
    """Steps from the untouched table to iterative: latency against dense, and where reads were served."""
    steps = {
        "dense_again": ("dense", "A/A control"),
        "permuted": ("permutation", "layout π₀, nothing removed: the same work"),
        "masked": ("mask, original order", "wholly dead tiles dropped"),
        "placebo": ("mask, random layout", "placebo"),
        "linear": ("linear: mask in layout π₀", "wholly dead tiles dropped"),
        "oneshot": ("oneshot: removal, original order", "no layout solved"),
        "packed": ("+ compaction in π₀'s order", "dead rows removed, not solved again"),
        "iterative": ("+ re-permutation (iterative)", "W′ solved for π₁: the result"),
    }
    label = next(iter(report["latency"]["shapes"]))
    found = report["latency"]["shapes"][label]
    return [
        {"step": step, "arm": arm, "latency_rel": found[arm]["vs_dense"], "note": note}
        for arm, (step, note) in steps.items()
        if arm in found
    ]


def second_level(figures: dict) -> dict:
    """The hit rate of the second cache, not measured where there is only one."""
    hits = [item for key, item in figures.items() if key.endswith("_hit_pct")]
    return hits[1] if len(hits) > 1 else not_measured("%", "this machine shows one cache only")


def metrics_of(run: Run, arm: str, report: dict) -> dict:
    """metrics.json of one arm (design section 8); an access event stands where a model has a token."""
    label = next(iter(report["latency"]["shapes"]))
    latency, sizes = report["latency"]["shapes"][label][arm], report["sizes"][arm]
    setup = run.read_json("setup/setup.json")
    objective = run.read_json(f"{arm}/solve.json")["objective"]["mean"] if arm != DENSE else None
    return {
        "run_id": f"{run.scenario.name}-{run.scenario.sha256[:12]}",
        "scenario": run.scenario.name,
        "mode": arm,
        "model": setup["model"],
        "badges": setup["badges"],
        "shape": label,
        "latency_ms": latency["latency_ms"],
        "throughput_tokens_per_s": latency["throughput_tokens_per_s"],
        "l2_hit_pct": second_level(report["caches"]["unseen"][arm]),
        "cache_hits": report["caches"]["unseen"][arm],
        "energy_j_per_token": report["energy"][arm],
        "quality_pct": not_measured("%", SAME_WORK),
        "peak_memory_mb": sizes["peak_memory_mb"],
        "parameter_bytes": sizes["parameter_bytes"],
        "widths": {"rows": sizes["rows"]},
        "objective": objective,
        "vs_dense": {
            "latency_rel": latency["vs_dense"],
            "quality_drop_pp": not_measured("pp", SAME_WORK),
        },
        "environment": setup["environment"],
        "config_sha256": run.scenario.sha256,
    }


def hit_change(figures: dict, other: dict) -> dict:
    """L2 hit rate of one arm less another's, percentage points; simulated like its parts."""
    pair = [second_level(item) for item in (figures, other)]
    if any(item["kind"] == "not_measured" for item in pair):
        return not_measured("pp", "this machine shows one cache only")
    gained = pair[0]["value"] - pair[1]["value"]
    return figure(gained, "pp", "simulated", n=pair[0]["n"], method=pair[0]["method"])
