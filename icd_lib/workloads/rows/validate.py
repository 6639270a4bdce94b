"""What a verdict says of a table: the claims of comparisons, determinism, the calibration's prediction."""

import numpy as np

from icd_lib.axes.permutation import hash_permutation
from icd_lib.codesign.layouts import solve_layout
from icd_lib.experiment.arms import RESULT, ROWS
from icd_lib.experiment.comparisons import comparisons_of
from icd_lib.experiment.verdict import missing_arm
from icd_lib.graph.contract import is_same_graph
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.records.measured import Measured
from icd_lib.records.verdict import Determinism, Predicted, Unknown
from icd_lib.solver.cost import evaluate_cost
from icd_lib.workloads.rows.arms import load_layout
from icd_lib.workloads.rows.context import AXIS, SAME_WORK, TableContext
from icd_lib.workloads.rows.measure import hit_change


def claim(sections: dict[str, dict], report: Measured) -> None:
    """Add to the comparisons' sections: hits, energy, equality of the work; every arm does the same."""
    same_work = not_measured("pp", SAME_WORK)
    for row in comparisons_of(ROWS):
        if row.judged:
            other = row.pairs[ROWS].other
            sections[row.key] |= {"l2_pp": hits_against(report, other), "ept_rel": energy_against(report, other)}
    sections["same_transform"] |= {"max_rel_error": 0.0, "equality": report.equality}
    lost = {arm: same_work for arm in ("linear", RESULT) if arm in report.sizes}
    sections["same_quality"]["quality_drop_pp"] = lost
    sections["vs_dense"]["quality_drop_pp"] = sections["vs_oneshot"]["quality_drop_pp"] = same_work


def evidence(context: TableContext, report: Measured) -> dict:
    """What verdict.json holds of a table besides comparisons and gates."""
    return {
        "determinism": determinism(context),
        "prediction": predicted_beside_measured(context, report),
        "calibration": calibration_words(context),
    }


def hits_against(report: Measured, other: str) -> Figure:
    """L2 hit rate that iterative gains over another arm on the unseen events, simulated."""
    caches = report.caches["unseen"]
    if missing := missing_arm(caches, (RESULT, other), "pp"):
        return missing
    return hit_change(caches[RESULT], caches[other])


def energy_against(report: Measured, other: str) -> Figure:
    """Energy of iterative relative to another arm on the unseen events, modelled."""
    energy = report.energy
    if missing := missing_arm(energy, (RESULT, other), "fraction"):
        return missing
    ours, theirs = energy[RESULT], energy[other]
    return figure(ours.value / theirs.value - 1, "fraction", "modelled", n=ours.n, method=ours.method)


def predicted_beside_measured(context: TableContext, report: Measured) -> dict[str, Predicted] | None:
    """What the calibration says of layout π₀ of the whole table, which was no pilot, and what was measured of it."""
    calibration, latency = context.calibration, report.latency.first
    if calibration is None or "permuted" not in latency or "latency_ms" not in calibration.slopes:
        return None
    mode = "iterative" if (context.run.dir / "iterative" / "solve.json").is_file() else "linear"
    layouts = np.arange(context.size), load_layout(context.run, mode, "perm_before")
    original, first = (evaluate_cost(context.graph, pi, context.given_cost) for pi in layouts)
    slopes = calibration.slopes["latency_ms"]
    change = sum(slope * (getattr(first, term) - getattr(original, term)) for term, slope in slopes.items())
    return {"permuted": Predicted(predicted_latency_rel=change, measured=latency["permuted"].vs_dense)}


def determinism(context: TableContext) -> Determinism | Unknown:
    """Count W and solve π₀ again: same bytes, same hash, same J."""
    run = context.run
    mode = next((mode for mode in ("linear", "iterative") if (run.dir / mode / "solve.json").is_file()), None)
    if mode is None:
        return Unknown(reason="the run has no mode that solves a layout")
    stats = run.read_json(f"{mode}/solve.json")["solver"]
    if not stats:
        return Unknown(reason="the permutation was given (solver.reuse_perm), not solved")
    again, _ = context.build_graph(context.seen)
    settings = context.solver_settings(context.cost)
    pi, _ = solve_layout(again, settings)
    same_w = is_same_graph(again, context.graph)
    same_pi = hash_permutation(pi) == hash_permutation(load_layout(run, mode, "perm_before"))
    before = stats[AXIS]["after"]["J"]
    drift = abs(evaluate_cost(again, pi, settings.cost_of(context.size)).J - before) / max(abs(before), 1e-12)
    words = f"π hash {'equal' if same_pi else 'DIFFERS'}, W {'equal' if same_w else 'DIFFERS'}"
    context.progress(f"counted and solved again: {words}")
    return Determinism(pi_hash_equal=same_pi, w_hash_equal=same_w, max_metric_drift_rel=drift)


def calibration_words(context: TableContext) -> dict | None:
    """What the report says of the calibration: R² per target, and whether the default weights were kept and why."""
    calibration = context.calibration
    if calibration is None:
        return None
    return {"r2": calibration.r2, "kept_defaults": calibration.kept_defaults, "reason": calibration.reason}
