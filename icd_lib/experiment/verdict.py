"""The parts of verdict.json that follow from the tables of comparisons and metrics, for every workload alike."""

from collections.abc import Mapping

from icd_lib.experiment.comparisons import AA_CONTROL, COMPARISONS, comparisons_of
from icd_lib.experiment.gates import GATES, judge
from icd_lib.experiment.metrics import COMPARED, LAYOUT, LOST, OUTSIDE, metrics_of
from icd_lib.measure.comparison import compare_arms
from icd_lib.metric import not_measured


def latency_sections(samples: dict, workload: str, *, seed: int, resamples: int) -> dict[str, dict]:
    """Comparison → its section: the change of latency at the first shape, which gates judge, and at every shape.

    samples: shape → arm → milliseconds, one per round; pairs are of the rounds that both arms shared.
    """
    found = {}
    for row in comparisons_of(workload):
        shapes = compare_arms(samples, row.arm, row.pairs[workload].other, seed=seed, resamples=resamples)
        found[row.key] = shapes if row.plain else {"latency_rel": first(shapes), "shapes": shapes}
    control = found[AA_CONTROL]["shapes"]
    # The interval has to contain 0 for the other intervals to be believed.
    contains_zero = {label: item["ci95"][0] <= 0 <= item["ci95"][1] for label, item in control.items()}
    found[AA_CONTROL] = {"shapes": control, "contains_zero": contains_zero}
    return found


def first(shapes: dict) -> dict:
    """The figure at the scenario's first shape."""
    return next(iter(shapes.values()))


def judged_figures(verdict: dict, lost: dict, layout: Mapping[str, dict]) -> dict[str, dict]:
    """Metric → the figure that gates judge: of the comparison they judge, lost against dense, of the layouts.

    lost: the figure of what is lost against dense; layout: `cost_figures` of π₁ against π₀.
    """
    section = verdict[verdict["gates_comparison"]]
    found = {row.key: section[row.key] for row in metrics_of(COMPARED)}
    found |= {row.key: lost for row in metrics_of(LOST)}
    found |= {row.key: layout[row.key] for row in metrics_of(LAYOUT)}
    return found | verdict.get("outside_metrics", {})


def outside_metrics(run, report: dict) -> dict[str, dict]:
    """{"outside_metrics": metric → figure} of the metrics from outside, empty where there are none."""
    found = {row.key: row.measure(run, report) for row in metrics_of(OUTSIDE)}
    return {"outside_metrics": found} if found else {}


def gate_verdicts(gates_cfg: Mapping[str, Mapping], figures: Mapping[str, dict]) -> dict[str, dict]:
    """Gate → its verdict (`gates.judge`)."""
    return {gate: judge(gates_cfg[gate], figures) for gate in GATES}


def other_verdicts(gates_cfg: Mapping[str, Mapping], verdict: dict) -> dict[str, dict[str, str]]:
    """Comparison → gate → state: what the gates do not judge, put to the same limits of latency."""
    found: dict = {}
    for row in COMPARISONS.values():
        if row.limited and row.key in verdict and row.key != verdict["gates_comparison"]:
            for gate in GATES:
                limit = {"latency_rel": gates_cfg[gate]["latency_rel"]}
                checks = judge(limit, {"latency_rel": verdict[row.key]["latency_rel"]})["checks"]
                found.setdefault(row.key, {})[gate] = checks.get("latency_rel", "not_measured")
    return found


def missing_arm(figures: Mapping[str, object], pair: tuple[str, str], unit: str) -> dict | None:
    """`not_measured` with the arm of `pair` that has no figure; None where both have one."""
    missing = [arm for arm in pair if arm not in figures]
    return not_measured(unit, f"the run has no arm {missing[0]!r}") if missing else None
