"""What re-permuting changed in the objective: ΔC, ΔQ and ΔJ of π₁ against π₀, for the verdict and its gates."""

from icd_lib.experiment.metrics import LAYOUT, metrics_of
from icd_lib.metric import figure, not_measured

METHOD = "computed from two layouts and W′; exact, no sampling"


def cost_change(run) -> dict:
    """ΔC, ΔQ and ΔJ of π₁ against π₀ on W′, mean over the axes; {"reason"} without an iterative arm.

    run: a `Run`, or a view of one in a package: `dir` and `read_json`.
    """
    if not (run.dir / "iterative" / "solve.json").is_file():
        return {"reason": "the run has no iterative arm"}
    mean = run.read_json("iterative/solve.json")["objective"]["mean"]
    before, after = mean["before"], mean["after"]
    return {
        "delta_c_rel": after["C"] / before["C"] - 1 if before["C"] else 0.0,
        "delta_q": after["Q"] - before["Q"],
        "delta_j": after["J"] - before["J"],
    }


def cost_figures(cost: dict) -> dict:
    """ΔC and ΔQ as figures that a gate takes."""
    if "reason" in cost:
        return {row.key: not_measured(row.unit, cost["reason"]) for row in metrics_of(LAYOUT)}
    return {row.key: figure(cost[row.key], row.unit, "modelled", method=METHOD) for row in metrics_of(LAYOUT)}
