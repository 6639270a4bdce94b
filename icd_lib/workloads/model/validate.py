"""What a verdict says of a model: quality lost, the claims of comparisons, determinism, prediction."""

from collections.abc import Callable
from dataclasses import replace

from icd_lib.axes.permutation import hash_permutation
from icd_lib.codesign.evidence import build_graphs
from icd_lib.codesign.layouts import solve_layouts
from icd_lib.experiment.arms import DENSE, MODEL, RESULT
from icd_lib.experiment.comparisons import comparisons_of
from icd_lib.experiment.counters import energy_by_windows, hit_change
from icd_lib.graph.contract import graph_sha256
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.records.losses import SplitLoss
from icd_lib.records.measured import MEASURED, Measured
from icd_lib.records.verdict import Determinism, Predicted, Unknown
from icd_lib.run.artifacts import Run
from icd_lib.run.shared import once_in_sweep
from icd_lib.solver.cost import evaluate_cost
from icd_lib.storage.npz import load_graph
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.version import sources_sha256
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.measure import drop_figure, reading_figure
from icd_lib.workloads.model.solve import make_inputs, moments_key, settings_of, solver_settings


def claim(sections: dict[str, dict], report: Measured) -> None:
    """Add to the comparisons' sections: hits, energy, error of the function, quality lost."""
    for row in comparisons_of(MODEL):
        if row.judged:
            other = row.pairs[MODEL].other
            ept = energy_by_windows(report, other) or energy_change(report.energy, other)
            sections[row.key] |= {"l2_pp": hit_change(report, other), "ept_rel": ept}
    sections["same_transform"]["max_rel_error"] = report.equality.get("same_transform")
    drops = {arm: drop_figure(report.quality, arm) for arm in report.sizes}
    if DENSE in report.equality:
        sections["vs_dense"]["max_rel_error"] = report.equality[DENSE]
    lost = drops.get(RESULT) or not_measured("pp", "the run has no iterative arm")
    sections["same_quality"]["quality_drop_pp"] = {arm: drops[arm] for arm in ("linear", RESULT) if arm in drops}
    sections["vs_dense"]["quality_drop_pp"] = sections["vs_oneshot"]["quality_drop_pp"] = lost
    if "oneshot" in drops:
        sections["vs_oneshot"]["other_quality_drop_pp"] = drops["oneshot"]


def evidence(context: Context, report: Measured) -> dict:
    """What verdict.json holds of a model besides comparisons and gates."""
    return {
        "quality": quality_of(context.run.read_json(MEASURED)["quality"]),
        "determinism": determinism(context, context.progress),
        "prediction": predicted_beside_measured(context.run, report),
    }


def quality_of(quality: dict) -> dict | Unknown:
    """Split → iterative against dense: figures of every reading, the worst domain, and every domain and task.

    quality: as it stands in measure.json, whose domains and tasks are taken over word for word
    """
    if "reason" in quality or RESULT not in quality:
        return Unknown(reason=quality.get("reason", "the run has no iterative arm"))
    losses = {split: from_json(SplitLoss, entry, MEASURED) for split, entry in quality[RESULT].items()}
    return {
        split: split_quality(entry) | {"domains": quality[RESULT][split]["domains"]} for split, entry in losses.items()
    }


def split_quality(entry: SplitLoss) -> dict:
    """One split of `quality_of`, without its domains."""
    nearness = {"cosine": ("1", "mean inner product with dense"), "kl": ("nats", "KL from dense per token")}
    nearness |= {"perplexity_ratio": ("1", "perplexity relative to dense")}
    figures = {f"{reading}_pp": reading_figure(entry, reading) for reading in ("own", "own_labelled", "dropin")}
    for name, (unit, method) in nearness.items():
        if near := entry.nearness(name):
            figures[name] = figure(near.value, unit, "measured", n=entry.n_items, method=method, ci95=near.ci95)
    return figures | {"worst_domain": entry.worst_domain, "n_items": entry.n_items}


def energy_change(energy: dict[str, Figure], other: str) -> Figure:
    """EpT of iterative relative to another arm, or why it was not measured."""
    pair = [energy.get(arm) or not_measured("J/token", f"the run has no arm {arm!r}") for arm in (RESULT, other)]
    missing = [item for item in pair if item.is_missing]
    if missing:
        return not_measured("fraction", missing[0].reason)
    (low, high), (other_low, other_high) = (item.ci95 for item in pair)
    return figure(
        pair[0].value / pair[1].value - 1,
        "fraction",
        "measured",
        n=pair[0].n,
        method="ratio of means, bounds from both intervals",
        ci95=(low / other_high - 1, high / other_low - 1),
    )


def determinism(context: Context, progress: Callable[[str], None]) -> Determinism | Unknown:
    """Build W and solve π₀ again: same bytes, same hashes, same deterministic figures."""
    run = context.run
    modes = [mode for mode in ("linear", "iterative") if (run.dir / mode / "perm_before.json").is_file()]
    if not modes:
        return Unknown(reason="the run has no mode that solves a layout")
    if not run.read_json(f"{modes[0]}/solve.json")["solver"]:
        given = context.get("solver.reuse_perm")
        what = "were given (solver.reuse_perm)" if given else "are the order in which the model is stored"
        return Unknown(reason=f"the permutations {what}, not solved")
    again, known = once_in_sweep(run, "again", again_key(context), lambda: solve_again(context))
    stored = run.read_json(f"{modes[0]}/perm_before.json")["axes"]
    same_pi = all(found["pi"] == stored[axis]["hash"] for axis, found in again.items())
    same_w = all(
        found["w"] == graph_sha256(load_graph(run.dir / "graph" / f"W.{axis}.npz")) for axis, found in again.items()
    )
    who = "solved again by another point of this sweep" if known else "solved again"
    progress(f"{who}: π hashes {'equal' if same_pi else 'DIFFER'}, W {'equal' if same_w else 'DIFFERS'}")
    return Determinism(pi_hash_equal=same_pi, w_hash_equal=same_w, max_metric_drift_rel=metric_drift(again, run))


def again_key(context: Context) -> dict:
    """What W and π₀ depend on: points of a sweep that agree in it are compared with what one of them solves again."""
    return moments_key(context) | {
        "nnz_cap": settings_of(context).nnz_cap,
        "solver": as_json(solver_settings(context)),
        "sources": sources_sha256(),
    }


def solve_again(context: Context) -> dict[str, dict]:
    """Axis → {"w": hash of W, "pi": hash of π₀, "J"}, all computed anew and nothing read back."""
    inputs = replace(make_inputs(context), keep_moments=None)
    graphs = build_graphs(inputs.observe(), inputs.settings.nnz_cap)
    perms, _ = solve_layouts(graphs, inputs.solver)
    return {
        axis: {
            "w": graph_sha256(graphs[axis]),
            "pi": hash_permutation(perm),
            "J": evaluate_cost(graphs[axis], perm, inputs.solver.cost_of(len(perm))).J,
        }
        for axis, perm in perms.items()
    }


def metric_drift(again: dict[str, dict], run: Run) -> float:
    """Largest relative difference of the layouts' J between the two solves."""
    mode = "linear" if (run.dir / "linear" / "solve.json").is_file() else "iterative"
    stats = run.read_json(f"{mode}/solve.json")["solver"]
    drift = [0.0]
    for axis, found in again.items():
        before = stats[axis]["after"]["J"]
        drift.append(abs(found["J"] - before) / max(abs(before), 1e-12))
    return max(drift)


def predicted_beside_measured(run: Run, report: Measured) -> dict[str, Predicted]:
    """What the tables promised for each mode's plan, and what was measured."""
    promised = {}
    for mode in report.sizes:
        if mode != DENSE:
            plan = run.read_json(f"{mode}/solve.json")["plan"]
            promised[mode] = Predicted(
                predicted_latency_rel=plan["predicted_latency_rel"] if plan else 0.0,
                measured=report.latency.first[mode].vs_dense,
            )
    return promised
