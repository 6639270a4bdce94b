"""Access graphs, width → latency tables, sensitivity, and a prediction before anything changes."""

import pkgutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import torch
from torch import nn

from icd_lib.axes.kinds import KINDS
from icd_lib.axes.verify import first_rows
from icd_lib.codesign.evidence import Evidence, Problem
from icd_lib.codesign.inputs import Inputs
from icd_lib.errors import TransformError
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.measure.steps import STEPS, Steps, measure_steps
from icd_lib.measure.tables import ON_DEVICE, Call, mean_over_shapes, measure_width_curves, widths_to_try
from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter
from icd_lib.progress import follow
from icd_lib.run.artifacts import Run
from icd_lib.run.shared import keep_shared, read_shared
from icd_lib.storage.machine import keep, keep_tables, processor, read_kept, read_tables
from icd_lib.storage.npz import save_graph
from icd_lib.storage.record_json import as_json
from icd_lib.transforms import is_given, transforms_of
from icd_lib.transforms.base import Manner
from icd_lib.transforms.observed import Observed
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from icd_lib.transforms.sparsity.allocate import LossCurve
from icd_lib.transforms.sparsity.sensitivity import measure_sensitivity
from icd_lib.transforms.sparsity.transform import TRANSFORM as SPARSITY
from icd_lib.transforms.weights.transform import PRECISIONS as WEIGHTS_ALONE
from icd_lib.version import sources_sha256
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.solve import findings_of, moments_key
from icd_lib.workloads.timing import settle_ms

MASK_GIVEN = "the model comes with its mask: there is no strength to choose, and nothing is lost"
NOTHING_GOES = "nothing is removed (codesign.strengths), so no width is chosen"
SENSITIVITY_BATCHES = 6
STEP_ROUNDS = 15
SENSITIVITY_WORK, QUICK_WORK = 6.5e12, 8e11  # multiply-adds; each block's probe runs the blocks behind it


def write_graphs(run: Run, graphs: dict, observed: Observed) -> dict:
    """Save W of every prunable axis with its structure figures."""
    meta = {}
    for axis, graph in graphs.items():
        save_graph(run.path("graph", f"W.{axis}.npz"), graph)
        degree = np.asarray(graph.sum(axis=1)).ravel()
        meta[axis] = {
            "D": graph.shape[0],
            "nnz": int(graph.nnz),
            "kind": "co-activation",
            "unit": "bytes",
            "tokens": observed.moments[axis].tokens,
            "degree_mean": float(degree.mean()),
            "degree_cv": float(degree.std() / degree.mean()) if degree.mean() else 0.0,
        }
    return meta


def measure_tables(context: Context, inputs: Inputs, progress: Callable[[str], None]) -> dict:
    """Dense milliseconds and width curves where the models are deployed: mean over the shapes that the plan is for."""
    quick = context.run.scenario.quick
    adapter, tile = find_adapter(inputs.dense), inputs.settings.tiles
    sizes = {item.kind: item.elements for item in adapter.prunable()}
    points = {True: 6 if quick else 12, False: 4 if quick else 6}
    widths = {kind: widths_to_try(size, points[KINDS[kind].tiled], tile[kind]) for kind, size in sizes.items()}
    shapes, target = [list(shape) for shape in context.deploy_shapes], context.target
    repeats = 5 if quick else 15
    key = {
        "model": context.checkpoint.sha256,
        "runtime": target.row.name,
        "fits_shapes": target.row.fits_shapes,
        "quantization": context.config["quantization"] if is_rounded_for_clock(context) else None,
        "shapes": shapes,
        "widths": widths,
        "repeats": repeats,
        "settle_ms": settle_ms(context.run),
        "savings": "never negative",  # curves that were kept under another rule are measured again
        "threads": torch.get_num_threads(),
        **processor(),
        **context.device.key,
        **({} if context.device.is_cpu else {"steps": list(STEPS)}),
        "torch": torch.__version__,
    }
    known = None if context.get("graph.remeasure") else read_tables(key) or read_shared(context.run, "tables", key)
    if known is not None:
        progress(f"width curves of this machine, measured {known['measured_at']} (graph.remeasure=true measures again)")
        return known
    with watched() as conditions:
        dense_ms, curves = mean_over_shapes(
            [
                measure_width_curves(
                    adapter,
                    context.fixed(batch, length),
                    widths,
                    repeats=repeats,
                    seed=context.get("seed"),
                    progress=follow(progress, f"width curves {batch}x{length}"),
                    call=call_for_clock(context),
                    settle_ms=settle_ms(context.run),
                    time_round=target.time_round,
                    at_once=None if context.device.is_cpu else ON_DEVICE,
                )
                for batch, length in shapes
            ]
        )
        steps = (
            {} if context.device.is_cpu else steps_on_device(context, adapter, {kind: tile[kind] for kind in widths})
        )
    tables = {
        "shape": shapes[0],
        "shapes": shapes,
        "runtime": target.row.name,
        "dense_ms": dense_ms,
        "kind": "measured",
        "n": repeats,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "curves": {
            kind: curve.to_json() | ({"steps": as_json(steps[kind])} if kind in steps else {})
            for kind, curve in curves.items()
        },
    }
    if disturbed := disturbances(conditions):
        where = "in this sweep" if context.run.shared else "now"
        progress(f"{'; '.join(disturbed)}: these curves are used {where}, and measured again by the next")
        keep_shared(context.run, "tables", key, tables)
    else:
        keep_tables(key, tables)
    return tables | {"conditions": conditions}


def steps_on_device(context: Context, adapter: Adapter, tiles: dict[str, int]) -> dict[str, Steps]:
    """`measure_steps` at the first shape that the plan is for; what was seen is told."""
    found = measure_steps(
        adapter,
        context.fixed(*context.deploy_shapes[0]),
        tiles,
        call=call_for_clock(context),
        repeats=STEP_ROUNDS,
        seed=context.get("seed"),
        settle_ms=settle_ms(context.run),
        time_round=context.target.time_round,
    )
    for kind, steps in found.items():
        seen = f"what the next multiple of {steps.step} does" if steps.step > tiles[kind] else "what they are"
        context.progress(f"{kind}: widths cost {seen} ({', '.join(map(str, steps.width))} were timed)")
    return found


def is_rounded_for_clock(context: Context) -> bool:
    """Whether a variant is quantised before it is timed: where it will compute in eight bits."""
    section = context.config.get("quantization")
    return section is not None and section["precision"] not in WEIGHTS_ALONE and context.target.row.precision == "int8"


def call_for_clock(context: Context) -> Call:
    """How a variant of the model is timed: where models are deployed, and roughly quantised where they will be.

    Only the shapes of its eight-bit products count for the clock, so one batch gives the ranges, and weights go to
    their nearest points. Where weights alone are rounded no product is in eight bits, and the variant is timed as is.
    """
    target = context.target
    if not is_rounded_for_clock(context):
        return target.enqueue
    recipe = Recipe(context.config["quantization"]["alpha"], compensate=False)

    def call(model: nn.Module, inputs: dict) -> Callable[[], object]:
        return target.call(quantize(model, context.deploy_calibration[:1], recipe)[0], inputs)

    return call


def known_sensitivity(context: Context, observed: Observed) -> list[dict]:
    """`sensitivity_map`, kept by this machine for runs of the same model, text and sources."""
    work = QUICK_WORK if context.run.scenario.quick else SENSITIVITY_WORK
    key = moments_key(context) | {"ridge": observed.ridge, "work": work, "sources": sources_sha256()}
    if (known := read_kept("sensitivity", key)) is not None:
        context.progress("which layer and axis hurts is known of this model and text")
        return known["blocks"]
    context.progress("measuring which layer and axis hurts")
    found = sensitivity_map(observed, work)
    keep("sensitivity", key, {"blocks": found})
    return found


def sensitivity_map(observed: Observed, work: float = SENSITIVITY_WORK) -> list[dict]:
    """One entry per block: what pruning it alone does to the output, found in about `work` multiply-adds."""
    rows = measure_sensitivity(
        observed.adapter,
        observed.moments,
        observed.element_paths,
        observed.ridge,
        probed(observed, work),
    )
    return [{**vars(entry), "rate": entry.rate} for entry in rows]


def probed(observed: Observed, work: float) -> list[dict]:
    """A few of the batches, evenly drawn; of a large model only their first rows: a probe per block adds up."""
    weights = sum(parameter.numel() for parameter in observed.adapter.trunk().parameters())
    passes = max(1, sum(1 for _ in observed.adapter.blocks()) / 2)
    batches = observed.batches[:: max(1, len(observed.batches) // SENSITIVITY_BATCHES)]
    tokens = work / (weights * passes)
    if sum(batch["input_ids"].numel() for batch in batches) <= tokens:
        return batches
    length = max(batch["input_ids"].shape[1] for batch in batches)
    rows = max(1, int(tokens / (len(batches) * length)))
    return [first_rows(batch, rows) for batch in batches]


def learn(context: Context, inputs: Inputs, observed: Observed, graphs: dict) -> dict:
    """Tables, sensitivity, curves and prediction, written to graph/*."""
    run, progress, transforms = context.run, context.progress, transforms_of(context.config)
    prunes = SPARSITY in transforms
    if prunes or is_given(context.config):
        progress("access graphs written; measuring width → latency")
        tables = measure_tables(context, inputs, progress)
    else:
        tables = {"dense_ms": None, "curves": {}, "reason": NOTHING_GOES}
    run.write_json("graph/tables.json", tables)
    problem = Problem(inputs, Evidence(observed, findings_of(tables, []), graphs), transforms)
    surveys = survey(run, problem)
    if not prunes:
        return {"tables": tables, **surveys, **nothing_to_choose(run, MASK_GIVEN if problem.is_given else NOTHING_GOES)}
    sensitivity = known_sensitivity(context, observed)
    run.write_json("graph/sensitivity.json", sensitivity)
    evidence = Evidence(observed, findings_of(tables, sensitivity), graphs)
    prediction, curves = predict(replace(problem, evidence=evidence))
    run.write_json("graph/prediction.json", prediction)
    run.write_json("graph/curves.json", [curve.to_json() for curve in curves])
    return {"tables": tables, "sensitivity": sensitivity, "prediction": prediction, **surveys}


def survey(run: Run, problem: Problem) -> dict[str, dict]:
    """What the transforms find out of the dense model, by their names; written to graph/<name>.json."""
    found = {}
    for transform in problem.transforms:
        if transform.survey is not None:
            found[transform.name] = pkgutil.resolve_name(transform.survey)(problem.given(transform))
            run.write_json(f"graph/{transform.name}.json", found[transform.name])
    return found


def nothing_to_choose(run: Run, reason: str) -> dict:
    """Written where no strength is chosen: no sensitivity, no curves, no frontier."""
    prediction = {"reason": reason}
    run.write_json("graph/sensitivity.json", [])
    run.write_json("graph/prediction.json", prediction)
    run.write_json("graph/curves.json", [])
    return {"sensitivity": [], "prediction": prediction}


def predict(problem: Problem) -> tuple[dict, list[LossCurve]]:
    """What each latency would cost, predicted from tables and loss curves before the model is touched; and the curves.

    The transform is asked as it would be for iterative, and for oneshot (one rate for all layers).
    """
    uneven = SPARSITY.evidence(problem.given(SPARSITY))
    known = {"uneven": uneven, "uniform": SPARSITY.evidence(problem.given(SPARSITY, Manner(even=True)))}
    frontier = []
    for strength in np.round(np.arange(-0.05, -0.81, -0.05), 2):
        entry = {"latency_rel": float(strength)}
        for name, evidence in known.items():
            try:
                plan = SPARSITY.plan(evidence, float(strength))
            except TransformError as error:
                entry[name] = {"reason": str(error)}
            else:
                entry[name] = {"output_error": plan.predicted_loss, "kept": plan.kept}
        frontier.append(entry)
    dense_ms = problem.evidence.findings.dense_ms
    return {"kind": "modelled", "dense_ms": dense_ms, "frontier": frontier}, uneven.curves
