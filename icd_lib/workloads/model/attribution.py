"""What the gain is made of: permutation, removal, compensation, distillation, rounding to tiles."""

import copy

import numpy as np
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.models.checkpoint.optimized import load_optimized
from icd_lib.models.families import find_adapter
from icd_lib.workloads.model.arms import Saved
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.solve import judgement_of


def attribute_gain(context: Context, iterative: Saved, shapes: dict) -> list[dict]:
    """Steps from dense to iterative: latency against dense (test shape) and quality lost where strengths are chosen."""
    label = next(iter(shapes))
    latency = {arm: entry.vs_dense for arm, entry in shapes[label].items()}
    steps = [
        {"step": "dense", "latency_rel": latency["dense_again"], "note": "A/A control"},
        {
            "step": "permutation",
            "latency_rel": latency["permuted"],
            "note": "layout π₁, nothing removed: same function",
        },
        {"step": "mask, linear's layout", "latency_rel": latency["same_transform"], "note": "whole dead tiles dropped"},
        {"step": "mask, random layout", "latency_rel": latency["placebo"], "note": "placebo"},
        {"step": "re-permutation and removal", "latency_rel": latency["iterative"], "note": "no compensation"},
        {"step": "+ compensation", "latency_rel": latency["iterative"], "note": "closed form, last round"},
        {"step": "+ distillation (iterative)", "latency_rel": latency["iterative"], "note": "the result"},
        {
            "step": "off the tile grid",
            "latency_rel": latency["unrounded"],
            "note": "seven elements fewer per axis",
        },
    ]
    if "dense_eager" in latency:
        note = "the dense model in PyTorch eager, fp32: what the runtime and its precision are worth"
        eager = {"step": "dense in eager", "arm": "dense_eager", "latency_rel": latency["dense_eager"], "note": note}
        steps.insert(0, eager)
    if context.is_trained:
        models = {
            "re-permutation and removal": removed_only(context.model, iterative.origin),
            "+ compensation": _undistilled(context),
        }
        for step in steps:
            step["validation"] = _lost(context, models.get(step["step"]))
        steps[-2]["validation"] = _as_judged(context.run.read_json("iterative/solve.json")["validation"])
    return steps


def removed_only(dense: nn.Module, origin: dict[str, np.ndarray]) -> nn.Module:
    """The dense model without the removed elements, nothing else changed."""

    smaller = copy.deepcopy(dense)
    for axis in find_adapter(smaller).axes():
        if axis.name in origin:
            compact(smaller, axis, np.isin(np.arange(axis.size), origin[axis.name]))
    return smaller


def _undistilled(context: Context) -> nn.Module | None:
    folder = context.run.dir / "iterative" / "undistilled"
    return load_optimized(folder) if folder.is_dir() else None


def _lost(context: Context, model: nn.Module | None) -> dict | None:
    if model is None:
        return None
    result = context.suite.evaluate(model, context.selecting)
    compared = context.suite.compare(result, context.dense_result(context.selecting))
    return _as_judged(judgement_of(compared).to_json())


def _as_judged(judged: dict | None) -> dict | None:
    wanted = ("drop_pp", "se_pp", "ci95", "cosine", "perplexity_ratio", "n_items")
    return {key: judged[key] for key in wanted if key in judged} if judged else None
