"""What re-permuting changed in the objective: ΔC, ΔQ and ΔJ of π₁ against π₀, for the verdict and its gates."""

from icd_lib.experiment.metrics import LAYOUT, metrics_of
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.records.attempts import Solved
from icd_lib.records.verdict import CostChange, Unknown

METHOD = "computed from two layouts and W′; exact, no sampling"


def cost_change(run) -> CostChange | Unknown:
    """ΔC, ΔQ and ΔJ of π₁ against π₀ on W′, mean over the axes; unknown without an iterative arm.

    run: a `Run`, or a view of one in a package: `dir` and `read`.
    """
    if not (run.dir / "iterative" / "solve.json").is_file():
        return Unknown(reason="the run has no iterative arm")
    mean = run.read(Solved, "iterative/solve.json").objective.mean
    before, after = mean.before, mean.after
    return CostChange(
        delta_c_rel=after.C / before.C - 1 if before.C else 0.0,
        delta_q=after.Q - before.Q,
        delta_j=after.J - before.J,
    )


def cost_figures(cost: CostChange | Unknown) -> dict[str, Figure]:
    """ΔC and ΔQ as figures that a gate takes."""
    if isinstance(cost, Unknown):
        return {row.key: not_measured(row.unit, cost.reason) for row in metrics_of(LAYOUT)}
    changes = {"delta_c_rel": cost.delta_c_rel, "delta_q": cost.delta_q}
    return {row.key: figure(changes[row.key], row.unit, "modelled", method=METHOD) for row in metrics_of(LAYOUT)}
