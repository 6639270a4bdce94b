"""The parts of verdict.json that follow from the tables of comparisons and metrics, for every workload alike."""

from collections.abc import Mapping

from icd_lib.experiment.comparisons import AA_CONTROL, COMPARISONS, comparisons_of
from icd_lib.experiment.gates import GATES, judge
from icd_lib.experiment.metrics import COMPARED, LAYOUT, LOST, OUTSIDE, metrics_of
from icd_lib.measure.comparison import compare_arms
from icd_lib.metric import Figure, not_measured
from icd_lib.records.measured import Measured
from icd_lib.records.verdict import GateVerdict


def latency_sections(samples: dict, workload: str, *, seed: int, resamples: int) -> dict[str, dict]:
    """Comparison → its section: the change of latency at the first shape, which gates judge, and at every shape.

    samples: shape → arm → milliseconds, one per round; pairs are of the rounds that both arms shared.
    """
    sections = {}
    for row in comparisons_of(workload):
        shapes = compare_arms(samples, row.arm, row.pairs[workload].other, seed=seed, resamples=resamples)
        sections[row.key] = shapes if row.plain else {"latency_rel": first(shapes), "shapes": shapes}
    control = sections[AA_CONTROL]["shapes"]
    sections[AA_CONTROL] = {"shapes": control, "contains_zero": contains_zero(control)}
    return sections


def contains_zero(control: Mapping[str, Figure]) -> dict[str, bool]:
    """Shape → whether the A/A interval contains 0, as it has to for the other intervals to be believed."""
    return {label: item.ci95[0] <= 0 <= item.ci95[1] for label, item in control.items()}


def first(shapes: dict[str, Figure]) -> Figure:
    """The figure at the scenario's first shape."""
    return next(iter(shapes.values()))


def judged_figures(
    section: Mapping[str, Figure], lost: Figure, layout: Mapping[str, Figure], outside: Mapping[str, Figure]
) -> dict[str, Figure]:
    """Metric → the figure that gates judge.

    section: metric → figure of the comparison that they judge; lost: against dense; layout: `cost_figures` of π₁
    against π₀; outside: of the metrics from outside
    """
    figures = {row.key: section[row.key] for row in metrics_of(COMPARED)}
    figures |= {row.key: lost for row in metrics_of(LOST)}
    figures |= {row.key: layout[row.key] for row in metrics_of(LAYOUT)}
    return figures | outside


def outside_metrics(run, report: Measured) -> dict[str, Figure]:
    """Metric → figure of the metrics that have a `measure` of their own, where they mean something."""
    found = {row.key: row.measure(run, report) for row in metrics_of(OUTSIDE)}
    return {key: item for key, item in found.items() if item is not None}


def gate_verdicts(gates_cfg: Mapping[str, Mapping], figures: Mapping[str, Figure]) -> dict[str, GateVerdict]:
    """Gate → its verdict (`gates.judge`)."""
    return {gate: judge(gates_cfg[gate], figures) for gate in GATES}


def other_verdicts(
    gates_cfg: Mapping[str, Mapping], sections: Mapping[str, Mapping], judged: str
) -> dict[str, dict[str, str]]:
    """Comparison → gate → state: what the gates do not judge (they judge `judged`), put to their limits of latency."""
    states: dict[str, dict[str, str]] = {}
    for row in COMPARISONS.values():
        if row.limited and row.key in sections and row.key != judged:
            for gate in GATES:
                if gates_cfg[gate]["latency_rel"] is None:
                    continue
                limit = {"latency_rel": gates_cfg[gate]["latency_rel"]}
                checks = judge(limit, {"latency_rel": sections[row.key]["latency_rel"]}).checks
                states.setdefault(row.key, {})[gate] = checks.get("latency_rel", "not_measured")
    return states


def missing_arm(figures: Mapping[str, object], pair: tuple[str, str], unit: str) -> Figure | None:
    """`not_measured` with the arm of `pair` that has no figure; None where both have one."""
    missing = [arm for arm in pair if arm not in figures]
    return not_measured(unit, f"the run has no arm {missing[0]!r}") if missing else None
