"""What is known of a table's arms besides the clock: checksums, simulated caches, modelled energy."""

from collections.abc import Iterator

import numpy as np

from icd_lib.errors import MeasureError
from icd_lib.experiment.arms import ARMS, RESULT, ROWS
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.records.measured import Measured
from icd_lib.workloads.base import Timed
from icd_lib.workloads.rows import address_stream, simulate_table
from icd_lib.workloads.rows.arms import Arm
from icd_lib.workloads.rows.context import SAME_WORK, TableContext

# What is timed, always on the unseen events; the first is the one that is judged.
SHAPES = {
    "chained": "each read waits for the one before it, so that its latency shows",
    "overlapped": "reads are independent and the processor overlaps them",
}
NO_METER = "the table is a few megabytes in a process of many; its bytes are counted instead"


def timed(context: TableContext, arms: dict[str, Arm], checksums: dict[str, dict]) -> Iterator[Timed]:
    """Both ways of reading the unseen events; what every arm sums up is put into `checksums`."""
    unseen = context.streams["unseen"]
    for label in SHAPES:
        runners = {name: arm.runner(context, unseen, chained=label == "chained") for name, arm in arms.items()}
        yield Timed(label, f"{label} reads", unseen.count, runners)
        checksums[label] = {name: f"{runner():.0f}" for name, runner in runners.items()}


def measured(
    context: TableContext, arms: dict[str, Arm], extra: dict[str, Arm], latency: dict, checksums: dict[str, dict]
) -> dict:
    """What measure.json holds besides latency."""
    every = arms | extra
    caches = {name: simulate_arms(context, every, events) for name, events in context.streams.items()}
    context.progress("caches simulated")
    row_bytes = context.get("workload.row_bytes")
    return {
        "quality": {"reason": SAME_WORK},
        "checksums": checksums,
        "equality": equality(checksums, {name for name, arm in every.items() if arm.alive.all()}),
        "sizes": {
            name: arm.sizes(context.tile, row_bytes) | {"peak_memory_mb": not_measured("MB", NO_METER)}
            for name, arm in every.items()
        },
        "caches": caches,
        "energy": {name: caches["unseen"][name]["energy_j_per_event"] for name in every},
        "controls": {name: ARMS[name].words[ROWS] for name in extra},
        "shapes": SHAPES,
        "attribution": attribution(latency) if RESULT in arms else None,
    }


def equality(checksums: dict, whole: set[str]) -> dict:
    """Whether all arms with everything alive (`whole`) agree, and all others; `MeasureError` when one does not."""
    groups = {"nothing removed": [], "transformed": []}
    for label, sums in checksums.items():
        for name, checksum in sums.items():
            groups["nothing removed" if name in whole else "transformed"].append((label, name, checksum))
    for what, entries in groups.items():
        odd = [entry for entry in entries if entry[2] != entries[0][2]]
        if odd:
            label, name, checksum = odd[0]
            raise MeasureError(
                f"arm {name} ({label}) has checksum {checksum}, the other arms with {what} have {entries[0][2]}; "
                "its layout does not do the same work"
            )
    return {what: {"arms": sorted({name for _, name, _ in entries}), "equal": True} for what, entries in groups.items()}


def simulate_arms(context: TableContext, arms: dict[str, Arm], events) -> dict:
    """Hit rates (simulated) and energy per pass and per event (modelled) of every arm on one stream."""
    simulated = {}
    for name, arm in arms.items():
        figures = simulate_table(context.workload(events).keep(arm.alive), arm.rows, context.levels)
        joules = figures["energy_j"]
        per_event = figure(joules.value / events.count, "J/event", "modelled", n=joules.n, method=joules.method)
        lines = lines_per_event(context, arm, events)
        simulated[name] = figures | {"energy_j_per_event": per_event, "lines_per_event": lines}
    return simulated


def lines_per_event(context: TableContext, arm: Arm, events) -> Figure:
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


def attribution(latency: dict) -> list[dict]:
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
    timings = next(iter(latency["shapes"].values()))
    return [
        {"step": step, "arm": arm, "latency_rel": timings[arm].vs_dense, "note": note}
        for arm, (step, note) in steps.items()
        if arm in timings
    ]


def second_level(figures: dict[str, Figure]) -> Figure:
    """The hit rate of the second cache, not measured where there is only one."""
    hits = [item for key, item in figures.items() if key.endswith("_hit_pct")]
    return hits[1] if len(hits) > 1 else not_measured("%", "this machine shows one cache only")


def metrics(arm: str, report: Measured) -> dict:
    """What metrics.json of an arm holds of a table; an access event stands where a model has a token."""
    sizes, hits = report.sizes[arm], report.caches["unseen"][arm]
    return {
        "l2_hit_pct": second_level(hits),
        "cache_hits": hits,
        "energy_j_per_token": report.energy[arm],
        "quality_pct": not_measured("%", SAME_WORK),
        "peak_memory_mb": sizes.peak_memory_mb,
        "parameter_bytes": sizes.parameter_bytes,
        "widths": {"rows": sizes.rows},
        "quality_drop_pp": not_measured("pp", SAME_WORK),
    }


def hit_change(figures: dict[str, Figure], other: dict[str, Figure]) -> Figure:
    """L2 hit rate of one arm less another's, percentage points; simulated like its parts."""
    ours, theirs = second_level(figures), second_level(other)
    if ours.is_missing or theirs.is_missing:
        return not_measured("pp", "this machine shows one cache only")
    return figure(ours.value - theirs.value, "pp", "simulated", n=ours.n, method=ours.method)
