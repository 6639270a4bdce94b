"""What re-permuting changed in the objective: ΔC, ΔQ and ΔJ of π₁ against π₀, for the verdict and its gates."""

from icd_lib.metric import figure, not_measured
from icd_lib.run.artifacts import Run

METHOD = "computed from two layouts and W′; exact, no sampling"
UNITS = {"delta_c_rel": "fraction", "delta_q": "1"}


def cost_change(run: Run) -> dict:
    """ΔC, ΔQ and ΔJ of π₁ against π₀ on W′, mean over the axes; {"reason"} without an iterative arm."""
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
        return {metric: not_measured(unit, cost["reason"]) for metric, unit in UNITS.items()}
    return {metric: figure(cost[metric], unit, "modelled", method=METHOD) for metric, unit in UNITS.items()}
