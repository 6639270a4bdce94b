"""One mode of the co-design loop, from the dense model to an optimised one on disk."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from icd_lib.codesign.evidence import Evidence, Problem
from icd_lib.codesign.inputs import Inputs, Judgement
from icd_lib.codesign.layouts import SolverSettings, layouts_folder, perm_record, read_perm_record
from icd_lib.codesign.loop import Solution, solve
from icd_lib.codesign.options import Settings
from icd_lib.codesign.tiles import check_axes, unfit_axes
from icd_lib.experiment.arms import RESULT
from icd_lib.graph.contract import check_w
from icd_lib.models.checkpoint.optimized import save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.run.artifacts import Run
from icd_lib.solver.cost import CostConfig, evaluate_cost
from icd_lib.storage.machine import kept_file, processor
from icd_lib.storage.npz import load_graph, save_graph
from icd_lib.transforms import further_transforms, transforms_of
from icd_lib.transforms.effects import alive_words
from icd_lib.transforms.observed import Findings
from icd_lib.transforms.sparsity.allocate import LatencyTable, LossCurve
from icd_lib.transforms.sparsity.prune import TERM_TOKENS
from icd_lib.workloads.model.context import Context

UNDISTILLED, UNQUANTIZED = "undistilled", "unquantized"  # folders of a mode, beside its model


def solve_mode(context: Context, mode: str) -> dict:
    """Solve `mode`, write <mode>/*; returns what <mode>/solve.json holds."""
    run = context.run
    problem = load_problem(context, mode, lambda event, **meta: run.log(f"02_solve[{mode}]", event=event, **meta))
    return write_solution(context, problem, solve(problem, mode))


def load_problem(context: Context, mode: str, log: Callable[..., None] = lambda event, **meta: None) -> Problem:
    """The scenario with the tables, curves and graphs that the graph stage left in the run's folder."""
    run, reused = context.run, context.get("solver.reuse_perm")
    keep_layouts = layouts_folder(run.dir, context.get("solver.cache"))
    inputs = replace(make_inputs(context), keep_layouts=keep_layouts, log=log)
    curves = [LossCurve.from_json(entry) for entry in run.read_json("graph/curves.json")]
    evidence = Evidence(
        inputs.observe(),
        findings_of(run.read_json("graph/tables.json"), run.read_json("graph/sensitivity.json"), curves),
        graphs={axis: read_graph(run, axis) for axis in run.read_json("graph/w.meta.json")},
        perms=read_perm_record(reused, mode) if reused and mode != "oneshot" else None,  # oneshot has no layout
    )
    return Problem(inputs, evidence, transforms_of(context.config))


def findings_of(tables: dict, sensitivity: list[dict], curves: list[LossCurve] | None = None) -> Findings:
    """What graph/tables.json, graph/sensitivity.json and graph/curves.json say."""
    rates = {entry["axis"]: entry["rate"] for entry in sensitivity}
    return Findings(latency_tables(tables), tables["dense_ms"] or 0.0, rates, curves)


def moments_key(context: Context) -> dict:
    """What the dense model's moments on the scenario's calibration text depend on."""
    get = context.get
    return {
        "model": context.checkpoint.sha256,
        "dtype": str(next(context.model.parameters()).dtype),
        "text": context.calibration_sha256,
        "texts": get("data.calibration_texts"),
        "seed": get("seed"),
        "max_length": get("data.max_length"),
        "term_tokens": TERM_TOKENS,
        "threads": torch.get_num_threads(),
        **processor(),
        **context.device.key,
        "torch": torch.__version__,
    }


def moments_file(context: Context) -> Path:
    """Where this machine keeps them."""
    return kept_file("moments", moments_key(context)).with_suffix(".safetensors")


def read_graph(run: Run, axis: str) -> sp.csr_array:
    """W of an axis as the graph stage wrote it."""
    return check_w(load_graph(run.dir / "graph" / f"W.{axis}.npz"))


def latency_tables(tables: dict) -> dict[str, LatencyTable]:
    """The tables of graph/tables.json."""
    return {
        kind: LatencyTable.of(kind, curve["kept"], curve["saved_ms_per_layer"], curve.get("steps", {}).get("step", 1))
        for kind, curve in tables["curves"].items()
    }


def make_inputs(context: Context) -> Inputs:
    """The scenario as the loop sees it."""
    get, config, settings = context.get, context.config, settings_of(context)
    check_axes(find_adapter(context.model), settings)
    tokens = get("transform.distill_tokens")
    texts = get("data.distill_texts") if get("transform.distill_steps") else 1
    place = context.device.place
    return Inputs(
        dense=context.dense,
        batches=[place(batch) for batch in context.calibration(get("data.calibration_texts"), 2048)],
        distill_batches=[place(batch) for batch in context.calibration(texts, tokens)],
        example=place(context.example),
        judge=selection_judge(context),
        settings=settings,
        solver=solver_settings(context),
        sections={row.options: config[row.options] for row in further_transforms(config)},
        progress=context.progress,
        keep_moments=moments_file(context),
    )


def settings_of(context: Context) -> Settings:
    """The loop's numbers from the scenario."""
    return Settings.of(context.run.scenario.config)


def solver_settings(context: Context) -> SolverSettings:
    """The solver's settings from the scenario."""
    return SolverSettings.of(context.get("solver"), CostConfig(**context.get("cost")), context.get("seed"))


def selection_judge(context: Context) -> Callable:
    """Judge of quality on the text that chooses; random weights pass, and say that nothing was judged."""
    if not context.is_trained:
        return lambda model: Judgement(0.0, 0.0, {"reason": "random weights: quality is not measured"})

    target, example = context.target, context.device.place(context.example)

    def judge(model) -> Judgement:
        with target.judged_form(model, example) as deployed:
            result = context.suite.evaluate(deployed, context.selecting)
        compared = context.suite.compare(result, context.dense_result(context.selecting))
        return judgement_of(compared)

    return judge


def judgement_of(compared: dict) -> Judgement:
    """The judgement that a comparison of the suite gives; its figures are plain numbers in the log and on the pages."""
    values = ("cosine", "kl", "perplexity_ratio")
    detail = {"split": compared["split"], "n_items": compared["n_items"], "ci95": compared["own"]["ci95"]}
    detail |= {key: compared[key]["value"] for key in values if compared.get(key)}
    detail |= {key: compared[key] for key in ("own_labelled", "dropin") if compared.get(key)}
    detail["per_domain"] = {name: entry["own"]["drop_pp"] for name, entry in compared["domains"].items()}
    return Judgement(compared["own"]["drop_pp"], compared["own"]["se_pp"], detail)


def write_solution(context: Context, problem: Problem, solution: Solution) -> dict:
    """Save permutations, graphs, masks, the model and the story of the loop."""
    run, mode, seed = context.run, solution.mode, context.get("seed")
    before, after = solution.perms_before, solution.perms_after
    best, graphs = solution.best.on_cpu(), problem.evidence.graphs
    run.write_json(f"{mode}/perm_before.json", perm_record(before, seed))
    run.write_json(f"{mode}/perm_after.json", perm_record(after, seed))
    objective = {}
    for axis in before:
        graph = best.effects[axis].graph(graphs[axis])
        save_graph(run.path(mode, f"W.{axis}.npz"), graph)
        objective[axis] = objective_of(graph, before[axis], after[axis], problem.inputs.solver)
    run.write_json(f"{mode}/transform_meta.json", transform_record(problem, solution))
    target = problem.inputs.settings.latency_target_rel
    report = {
        "mode": mode,
        "accepted_strength": best.strength,
        "widths": best.widths,
        "plan": best.plan.to_json() if best.plan else None,
        "validation": best.judgement.to_json() if best.judgement else None,
        "latency_target_rel": target,
        "reached": solution.reached(target),
        "attempts": solution.attempts,
        "objective": {"mean": mean_objective(objective), "axes": objective},
        "solver": solution.solver_stats,
        "certificates": solution.certificates,
    }
    if unfit := unfit_axes(problem.evidence.observed.adapter, problem.inputs.settings, mode):
        report["unfit"] = unfit
        for line in unfit:
            context.progress(line)
    meta = {"mode": mode, "widths": best.widths, "source": context.checkpoint.provenance()}
    save_optimized(
        best.model, context.tokenizer, run.path(mode, "model"), meta, uniform=context.get("transform.uniform")
    )
    if best.before_distill is not None and problem.inputs.settings.distill_steps:
        save_optimized(best.before_distill, context.tokenizer, run.path(mode, UNDISTILLED), meta)
    if best.unquantized is not None and mode == RESULT:
        save_optimized(best.unquantized, context.tokenizer, run.path(mode, UNQUANTIZED), meta)
    run.write_json(f"{mode}/solve.json", report)
    if report["reached"] is False:
        predicted = f"{best.plan.predicted_latency_rel:+.1%}" if best.plan else "none"
        context.progress(f"latency target {target:+.1%} NOT reached: predicted {predicted}")
    return report


def transform_record(problem: Problem, solution: Solution) -> dict:
    """What <mode>/transform_meta.json holds: what is left of every axis, and what each of the transforms did."""
    rows = {transform.name: transform for transform in problem.transforms}
    done = [rows[name].save(meta) for name, meta in solution.best.metas.items()]
    axes = {axis: {"D": len(there), "alive": alive_words(there)} for axis, there in solution.present.items()}
    return {"axes": axes, "transforms": done}


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
