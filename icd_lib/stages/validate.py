"""Stage 04: linear × iterative → the comparisons, controls, determinism and the gates."""

from collections.abc import Callable
from dataclasses import replace

from icd_lib.axes.permutation import hash_permutation
from icd_lib.codesign.layouts import solve_layouts
from icd_lib.experiment.cost import cost_change, cost_figures
from icd_lib.experiment.gates import judge
from icd_lib.graph.contract import is_same_graph
from icd_lib.measure import comparison
from icd_lib.metric import figure, not_measured
from icd_lib.run.artifacts import Run
from icd_lib.solver.cost import evaluate_cost
from icd_lib.stages.context import Context
from icd_lib.stages.contexts import make_context
from icd_lib.stages.measure import drop_figure, reading_figure
from icd_lib.stages.solve import make_problem
from icd_lib.stages.timing import stability
from icd_lib.storage.npz import load_graph


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write verdict.json and return it."""
    context = make_context(run, progress)
    report = run.read_json("measure/measure.json")
    samples = run.read_json("measure/samples.json")["shapes"]
    comparison = run.scenario.get("gates.comparison")
    verdict = {
        "gates_comparison": comparison,
        "quality": quality_of(report["quality"]),
        "same_transform": same_transform(context, report, samples),
        "same_quality": same_quality(context, report, samples),
        "vs_dense": against(context, report, samples, "dense"),
        "vs_oneshot": against(context, report, samples, "oneshot"),
        "placebo": compare_arms(context, samples, "iterative", "placebo"),
        "aa_control": aa_control(context, samples),
        "cost": cost_change(run),
        "determinism": determinism(context, progress),
        "stability": stability(samples, report["latency"]["clocks"]),
        "prediction": predicted_beside_measured(run, report),
        "badges": run.read_json("setup/setup.json")["badges"],
    }
    judged = {key: verdict[comparison][key] for key in ("latency_rel", "l2_pp", "ept_rel")}
    judged |= {"quality_drop_pp": verdict["vs_dense"]["quality_drop_pp"], **cost_figures(verdict["cost"])}
    for gate in ("smoke", "strict"):
        verdict[gate] = judge(run.scenario.get(f"gates.{gate}"), judged)
        progress(f"{gate}: {verdict[gate]['status']} {verdict[gate]['checks']}")
    verdict["other_comparisons"] = other_verdicts(run, verdict)
    run.write_json("verdict.json", verdict)
    return verdict


OTHERS = ("same_transform", "same_quality", "vs_oneshot")  # comparisons that a gate's threshold of latency is put to


def other_verdicts(run: Run, verdict: dict) -> dict:
    """Comparison → gate → state: the comparisons that the gates do not judge, put to the same limit of latency."""
    found: dict = {}
    for key in OTHERS:
        if key != verdict["gates_comparison"]:
            for gate in ("smoke", "strict"):
                limit = {"latency_rel": run.scenario.get(f"gates.{gate}")["latency_rel"]}
                checks = judge(limit, {"latency_rel": verdict[key]["latency_rel"]})["checks"]
                found.setdefault(key, {})[gate] = checks.get("latency_rel", "not_measured")
    return found


def quality_of(quality: dict) -> dict:
    """Split → iterative against dense: figures of every reading, the worst domain, and every domain and task."""
    if "reason" in quality or "iterative" not in quality:
        return {"reason": quality.get("reason", "the run has no iterative arm")}
    return {split: split_quality(entry) for split, entry in quality["iterative"].items()}


def split_quality(entry: dict) -> dict:
    """One split of `quality_of`."""
    nearness = {"cosine": ("1", "mean inner product with dense"), "kl": ("nats", "KL from dense per token")}
    nearness |= {"perplexity_ratio": ("1", "perplexity relative to dense")}
    found = {f"{reading}_pp": reading_figure(entry, reading) for reading in ("own", "own_labelled", "dropin")}
    for name, (unit, method) in nearness.items():
        if entry.get(name):
            found[name] = figure(
                entry[name]["value"], unit, "measured", n=entry["n_items"], method=method, ci95=entry[name]["ci95"]
            )
    return found | {"worst_domain": entry["worst_domain"], "n_items": entry["n_items"], "domains": entry["domains"]}


def compare_arms(context: Context, samples: dict, arm: str, other: str) -> dict:
    """Latency of `arm` relative to `other` at every shape, from the rounds they shared."""
    seed, resamples = context.get("seed"), context.get("measure.bootstrap")
    return comparison.compare_arms(samples, arm, other, seed=seed, resamples=resamples)


def first(shapes: dict) -> dict:
    """The figure at the scenario's first shape, which the gates judge."""
    return next(iter(shapes.values()))


def same_transform(context: Context, report: dict, samples: dict) -> dict:
    """One mask, two layouts."""
    shapes = compare_arms(context, samples, "iterative", "same_transform")
    return {
        "latency_rel": first(shapes),
        "shapes": shapes,
        "max_rel_error": report["equality"].get("same_transform"),
        "l2_pp": not_measured("pp", report["l2_hit_pct"].get("reason", "no L2 figures of both layouts")),
        "ept_rel": energy_change(report["energy"], "same_transform"),
    }


def same_quality(context: Context, report: dict, samples: dict) -> dict:
    """Each mode spent the same quality budget: iterative against linear."""
    shapes = compare_arms(context, samples, "iterative", "linear")
    return {
        "latency_rel": first(shapes),
        "shapes": shapes,
        "l2_pp": not_measured("pp", report["l2_hit_pct"].get("reason", "no L2 figures of both modes")),
        "ept_rel": energy_change(report["energy"], "linear"),
        "quality_drop_pp": {
            arm: drop_figure(report["quality"], arm) for arm in ("linear", "iterative") if arm in report["sizes"]
        },
    }


def energy_change(energy: dict, other: str) -> dict:
    """EpT of iterative relative to another arm, or why it was not measured."""
    pair = [energy.get(arm) or not_measured("J/token", f"the run has no arm {arm!r}") for arm in ("iterative", other)]
    missing = [item for item in pair if item["kind"] == "not_measured"]
    if missing:
        return not_measured("fraction", missing[0]["reason"])
    (low, high), (other_low, other_high) = (item["ci95"] for item in pair)
    return figure(
        pair[0]["value"] / pair[1]["value"] - 1,
        "fraction",
        "measured",
        n=pair[0]["n"],
        method="ratio of means, bounds from both intervals",
        ci95=(low / other_high - 1, high / other_low - 1),
    )


def against(context: Context, report: dict, samples: dict, other: str) -> dict:
    """Iterative against another arm: latency at every shape, and both quality losses against dense."""
    shapes = compare_arms(context, samples, "iterative", other)
    found = {"latency_rel": first(shapes), "shapes": shapes}
    has = [arm for arm in ("iterative", other) if arm in report["sizes"]]
    drops = {arm: drop_figure(report["quality"], arm) for arm in has}
    found["quality_drop_pp"] = drops.get("iterative") or not_measured("pp", "the run has no iterative arm")
    if other != "dense" and other in drops:
        found["other_quality_drop_pp"] = drops[other]
    return found


def aa_control(context: Context, samples: dict) -> dict:
    """The dense model against itself: the interval must contain 0 for the other intervals to be believed."""
    shapes = compare_arms(context, samples, "dense_again", "dense")
    return {
        "shapes": shapes,
        "contains_zero": {label: item["ci95"][0] <= 0 <= item["ci95"][1] for label, item in shapes.items()},
    }


def determinism(context: Context, progress: Callable[[str], None]) -> dict:
    """Build W and solve π₀ again: same bytes, same hashes, same deterministic figures."""
    run = context.run
    modes = [mode for mode in ("linear", "iterative") if (run.dir / mode / "perm_before.json").is_file()]
    if not modes:
        return {"reason": "the run has no mode that solves a layout"}
    if not run.read_json(f"{modes[0]}/solve.json")["solver"]:
        return {"reason": "the permutations were given (solver.reuse_perm), not solved"}
    problem = replace(make_problem(context, {}, 0.0, {}), keep_moments=None)  # computed again, not read back
    perms, _ = solve_layouts(problem.graphs, problem.solver)
    stored = run.read_json(f"{modes[0]}/perm_before.json")["axes"]
    same_pi = all(hash_permutation(perm) == stored[axis]["hash"] for axis, perm in perms.items())
    same_w = all(
        is_same_graph(load_graph(run.dir / "graph" / f"W.{axis}.npz"), graph) for axis, graph in problem.graphs.items()
    )
    progress(f"solved again: π hashes {'equal' if same_pi else 'DIFFER'}, W {'equal' if same_w else 'DIFFERS'}")
    return {"pi_hash_equal": same_pi, "w_hash_equal": same_w, "max_metric_drift_rel": metric_drift(problem, perms, run)}


def metric_drift(problem, perms: dict, run: Run) -> float:
    """Largest relative difference of the layouts' J between the two solves."""
    mode = "linear" if (run.dir / "linear" / "solve.json").is_file() else "iterative"
    stats = run.read_json(f"{mode}/solve.json")["solver"]
    drift = [0.0]
    for axis, perm in perms.items():
        again = evaluate_cost(problem.graphs[axis], perm, problem.solver.cost_of(len(perm))).J
        before = stats[axis]["after"]["J"]
        drift.append(abs(again - before) / max(abs(before), 1e-12))
    return max(drift)


def predicted_beside_measured(run: Run, report: dict) -> dict:
    """What the tables promised for each mode's plan, and what was measured."""
    label = next(iter(report["latency"]["shapes"]))
    found = {}
    for mode in report["sizes"]:
        if mode != "dense":
            plan = run.read_json(f"{mode}/solve.json")["plan"]
            found[mode] = {
                "predicted_latency_rel": plan["predicted_latency_rel"] if plan else 0.0,
                "measured": report["latency"]["shapes"][label][mode]["vs_dense"],
            }
    return found
