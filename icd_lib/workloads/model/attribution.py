"""What the gain is made of: permutation, removal, compensation, distillation, quantization, rounding to tiles."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.models.families import find_adapter
from icd_lib.runtimes.target import Target
from icd_lib.workloads.model.arms import Saved, is_rounded, undistilled, unquantized
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.solve import judgement_of

QUANTIZATION, RESULTING = "+ quantization", " (iterative)"
ROUNDED_FIRST = "the scenario quantises first (quantization.order): no model was changed that is not rounded"


@dataclass(frozen=True)
class Change:
    """A step that changes weights and not shapes; `judge`: what is lost by then, where strengths are chosen."""

    step: str
    note: str
    judge: Callable[[Context, Saved], dict | None]


def attribute_gain(context: Context, solved: Saved, shapes: dict) -> list[dict]:
    """Steps from dense to iterative: latency against dense (first shape) and quality lost where strengths are chosen.

    All before the result are judged in PyTorch at fp32; of the result it is the judgement by which it was taken.
    """
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
    ]
    for change in changes_of(context, solved):
        step = {"step": change.step, "latency_rel": latency["iterative"], "note": change.note}
        steps.append(step | ({"validation": change.judge(context, solved)} if context.is_trained else {}))
    steps.append(
        {"step": "off the tile grid", "latency_rel": latency["unrounded"], "note": "seven elements fewer per axis"}
    )
    return steps


def changes_of(context: Context, solved: Saved) -> list[Change]:
    """The changes of weights that this run has, the result last."""
    distils = bool(context.get("transform.distill_steps"))
    changes = [
        Change("re-permutation and removal", "no compensation", lost_by_removal),
        Change("+ compensation", "closed form, last round", lost_undistilled if distils else lost_unrounded),
    ]
    if distils:
        changes.append(Change("+ distillation", "toward dense", lost_unrounded))
    if is_rounded(context, solved):
        changes.append(Change(QUANTIZATION, f"as deployed: {context.target.row.label}", lost_unrounded))
    last = changes.pop()
    return [*changes, Change(last.step + RESULTING, f"{last.note}; the result", lost_by_result)]


def before_quantization(steps: list[dict]) -> dict | None:
    """What is lost by the last of the steps in which nothing is rounded, of a run whose result is."""
    names = [step["step"] for step in steps]
    return steps[names.index(QUANTIZATION + RESULTING) - 1].get("validation")


def lost_by_result(context: Context, solved: Saved) -> dict | None:
    """What the result loses as it is deployed."""
    return _as_judged(context.run.read_json(f"{solved.mode}/solve.json")["validation"])


def lost_by_removal(context: Context, solved: Saved) -> dict | None:
    """What is lost where elements are removed and nothing makes up for them."""
    if all(len(solved.origin[axis]) == len(perm) for axis, perm in solved.after.items()):
        return {"reason": "nothing was removed"}
    return lost_in(context, removed_only(context.model, solved.origin))


def lost_undistilled(context: Context, solved: Saved) -> dict | None:
    """What is lost before distillation."""
    model = undistilled(context)
    return None if model is None else lost_in(context, model)


def lost_unrounded(context: Context, solved: Saved) -> dict | None:
    """What iterative loses where nothing of it is rounded."""
    model = unquantized(context, solved)
    return {"reason": ROUNDED_FIRST} if model is None else lost_in(context, model)


def lost_in(context: Context, model: nn.Module, target: Target | None = None) -> dict | None:
    """What a model loses where strengths are chosen, in PyTorch at fp32 or in another runtime."""
    target = target or context.reference
    with target.judged_form(model, context.example) as judged:
        result = context.suite.evaluate(judged, context.selecting)
    compared = context.suite.compare(result, context.dense_result(context.selecting))
    return _as_judged(judgement_of(compared).to_json())


def removed_only(dense: nn.Module, origin: dict[str, np.ndarray]) -> nn.Module:
    """The dense model without the removed elements, nothing else changed."""

    smaller = copy.deepcopy(dense)
    for axis in find_adapter(smaller).axes():
        if axis.name in origin:
            compact(smaller, axis, np.isin(np.arange(axis.size), origin[axis.name]))
    return smaller


def _as_judged(judged: dict | None) -> dict | None:
    wanted = ("drop_pp", "se_pp", "ci95", "cosine", "perplexity_ratio", "n_items")
    return {key: judged[key] for key in wanted if key in judged} if judged else None
