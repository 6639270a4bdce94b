"""Stage 02: one mode of the co-design loop, from the dense model to an optimised one on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from icd_lib.codesign.layouts import SolverSettings, layouts_folder, perm_record, read_perm_record
from icd_lib.codesign.loop import Solution, solve
from icd_lib.codesign.problem import Judgement, Problem, Settings
from icd_lib.graph.contract import check_w
from icd_lib.graph.mask import mask_graph
from icd_lib.models.checkpoint.optimized import save_optimized
from icd_lib.run.artifacts import Run
from icd_lib.solver.cost import CostConfig, evaluate_cost
from icd_lib.stages.context import Context
from icd_lib.stages.contexts import make_context
from icd_lib.storage.machine import cpu_model, kept_file
from icd_lib.storage.npz import load_graph, save_graph
from icd_lib.transforms.sparsity.allocate import LatencyTable, LossCurve


def run_stage(run: Run, mode: str, progress: Callable[[str], None] = print) -> dict:
    """Solve `mode`, write <mode>/*; returns what <mode>/solve.json holds."""
    context = make_context(run, progress)
    problem = load_problem(context)
    if context.get("solver.reuse_perm") and mode != "oneshot":  # oneshot has no layout
        problem.known_perms = read_perm_record(context.get("solver.reuse_perm"), mode)
    problem.log = lambda event, **meta: run.log(f"02_solve[{mode}]", event=event, **meta)
    solution = solve(problem, mode)
    return write_solution(context, problem, solution)


def load_problem(context: Context) -> Problem:
    """The scenario with the tables, curves and graphs that the graph stage left in the run's folder."""
    run = context.run
    tables = run.read_json("graph/tables.json")
    rates = {entry["axis"]: entry["rate"] for entry in run.read_json("graph/sensitivity.json")}
    problem = make_problem(context, latency_tables(tables), tables["dense_ms"], rates)
    problem.known_curves = [LossCurve.from_json(entry) for entry in run.read_json("graph/curves.json")]
    problem.known_graphs = {axis: read_graph(run, axis) for axis in run.read_json("graph/w.meta.json")}
    problem.keep_layouts = layouts_folder(run.dir, context.get("solver.cache"))
    return problem


def moments_file(context: Context) -> Path:
    """Where this machine keeps the dense model's moments on the scenario's calibration text."""
    get = context.get
    key = {
        "model": context.checkpoint.sha256,
        "dtype": str(next(context.model.parameters()).dtype),
        "text": context.calibration_sha256,
        "texts": get("data.calibration_texts"),
        "seed": get("seed"),
        "max_length": get("data.max_length"),
        "threads": torch.get_num_threads(),
        "cpu": cpu_model(),
        "torch": torch.__version__,
    }
    return kept_file("moments", key).with_suffix(".safetensors")


def read_graph(run: Run, axis: str) -> sp.csr_array:
    """W of an axis as the graph stage wrote it."""
    return check_w(load_graph(run.dir / "graph" / f"W.{axis}.npz"))


def latency_tables(tables: dict) -> dict[str, LatencyTable]:
    """The tables of graph/tables.json."""
    return {
        kind: LatencyTable.of(kind, curve["kept"], curve["saved_ms_per_layer"])
        for kind, curve in tables["curves"].items()
    }


def make_problem(context: Context, tables: dict, dense_ms: float, rates: dict) -> Problem:
    """The scenario as the loop sees it."""
    get = context.get
    tokens = get("transform.distill_tokens")
    texts = get("data.distill_texts") if get("transform.distill_steps") else 1
    return Problem(
        dense=context.model,
        batches=context.calibration(get("data.calibration_texts"), 2048),
        distill_batches=context.calibration(texts, tokens),
        example=context.example,
        judge=selection_judge(context),
        tables=tables,
        dense_ms=dense_ms,
        rates=rates,
        settings=settings_of(context),
        solver=solver_settings(context),
        progress=context.progress,
        keep_moments=moments_file(context),
    )


def settings_of(context: Context) -> Settings:
    """The loop's numbers from the scenario."""
    get = context.get
    transform = {
        key: get(f"transform.{key}")
        for key in ("tile", "ridge", "uniform", "sequential", "head_dim", "distill_steps", "distill_lr")
    }
    codesign = {
        key: get(f"codesign.{key}")
        for key in (
            "quality_budget_pp",
            "latency_target_rel",
            "selection_z",
            "dropin_budget_pp",
            "min_cosine",
            "max_perplexity_ratio",
            "max_rounds",
            "epsilon_j",
        )
    }
    return Settings(
        axes=tuple(get("transform.axes")),
        strengths=tuple(sorted(get("codesign.strengths"), reverse=True)),
        nnz_cap=get("graph.nnz_cap"),
        seed=get("seed"),
        **transform,
        **codesign,
    )


def solver_settings(context: Context) -> SolverSettings:
    """The solver's settings from the scenario."""
    solver = context.get("solver")
    keys = ("method", "time_budget_s", "refine_steps")
    cost = CostConfig(**context.get("cost"))
    return SolverSettings(cost, seed=context.get("seed"), **{key: solver[key] for key in keys})


def selection_judge(context: Context) -> Callable:
    """Judge of quality on the text that chooses; random weights pass, and say that nothing was judged."""
    if not context.is_trained:
        return lambda model: Judgement(0.0, 0.0, {"reason": "random weights: quality is not measured"})

    def judge(model) -> Judgement:
        result = context.suite.evaluate(model, context.selecting)
        found = context.suite.compare(result, context.dense_result(context.selecting))
        return judgement_of(found)

    return judge


def judgement_of(found: dict) -> Judgement:
    """The judgement that a comparison of the suite gives; its figures are plain numbers in the log and on the pages."""
    values = ("cosine", "kl", "perplexity_ratio")
    detail = {"split": found["split"], "n_items": found["n_items"], "ci95": found["own"]["ci95"]}
    detail |= {key: found[key]["value"] for key in values if found.get(key)}
    detail |= {key: found[key] for key in ("own_labelled", "dropin") if found.get(key)}
    detail["per_domain"] = {name: entry["own"]["drop_pp"] for name, entry in found["domains"].items()}
    return Judgement(found["own"]["drop_pp"], found["own"]["se_pp"], detail)


def write_solution(context: Context, problem: Problem, solution: Solution) -> dict:
    """Save permutations, graphs, masks, the model and the story of the loop."""
    run, mode, seed = context.run, solution.mode, context.get("seed")
    before, after, alive = solution.perms_before, solution.perms_after, solution.alive
    run.write_json(f"{mode}/perm_before.json", perm_record(before, seed))
    run.write_json(f"{mode}/perm_after.json", perm_record(after, seed))
    objective = {}
    for axis in before:
        graph = mask_graph(alive[axis], base=problem.graphs[axis])
        save_graph(run.path(mode, f"W.{axis}.npz"), graph)
        objective[axis] = objective_of(graph, before[axis], after[axis], problem.solver)
    best = solution.best
    run.write_json(
        f"{mode}/transform_meta.json",
        {
            "axes": {axis: {"D": len(mask), "alive": np.flatnonzero(mask).tolist()} for axis, mask in alive.items()},
            "last_transform": best.meta.to_json() if best.meta else None,
        },
    )
    report = {
        "mode": mode,
        "accepted_strength": best.strength,
        "widths": best.widths,
        "plan": best.plan.to_json() if best.plan else None,
        "validation": best.judgement.to_json() if best.judgement else None,
        "latency_target_rel": problem.settings.latency_target_rel,
        "reached": solution.reached(problem.settings.latency_target_rel),
        "attempts": solution.attempts,
        "objective": {"mean": mean_objective(objective), "axes": objective},
        "solver": solution.solver_stats,
        "certificates": solution.certificates,
    }
    meta = {"mode": mode, "widths": best.widths, "source": context.checkpoint.provenance()}
    save_optimized(
        best.model, context.tokenizer, run.path(mode, "model"), meta, uniform=context.get("transform.uniform")
    )
    if best.before_distill is not None:
        save_optimized(best.before_distill, context.tokenizer, run.path(mode, "undistilled"), meta)
    run.write_json(f"{mode}/solve.json", report)
    if report["reached"] is False:
        predicted = f"{best.plan.predicted_latency_rel:+.1%}" if best.plan else "none"
        context.progress(
            f"latency target {problem.settings.latency_target_rel:+.1%} NOT reached: predicted {predicted}"
        )
    return report


def objective_of(graph, before: np.ndarray, after: np.ndarray, solver: SolverSettings) -> dict:
    """C, Q, R_align, R_stab and J of π₀ and π₁ on W′."""
    cost = solver.cost_of(graph.shape[0])
    return {
        "before": vars(evaluate_cost(graph, before, cost, before)),
        "after": vars(evaluate_cost(graph, after, cost, before)),
    }


def mean_objective(objective: dict) -> dict:
    """Mean over the axes of every term, before and after."""
    return {
        when: {
            term: float(np.mean([entry[when][term] for entry in objective.values()]))
            for term in ("C", "Q", "R_align", "R_stab", "J")
        }
        for when in ("before", "after")
    }
