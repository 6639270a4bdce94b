"""Weights in groups as the loop sees them: what each arm's order is, and which columns want to lie together.

Linear rounds in the order of its layout, and oneshot in the stored one. Iterative rounds in the order of the evidence,
most active first, as its axes can take it: `π₀ → evidence → π′`. The orders of axes that no other transform lays out
(value dims, query heads, the residual stream) are folded here; an FFN's are an effect, `Groups`, and the loop's own
re-permutation makes them contiguous. No weight changes by that: to round in an order and then fold it is to fold it and
then round.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from icd_lib.axes.kinds import KINDS
from icd_lib.errors import TransformError
from icd_lib.models.families import family_of, find_adapter
from icd_lib.models.grouped import grid_of
from icd_lib.models.quantized import check_scales
from icd_lib.storage.machine import keep, read_kept
from icd_lib.transforms.base import Given
from icd_lib.transforms.effects import Groups, TransformMeta, untouched
from icd_lib.transforms.quantization.sensitivity import fewer
from icd_lib.transforms.weights.activity import column_activity, linear_names, shared_activity
from icd_lib.transforms.weights.allocate import allocate
from icd_lib.transforms.weights.fold import fold
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.orders import Columns
from icd_lib.transforms.weights.rounding import Recipe, RoundedModel, round_embeddings, round_weights
from icd_lib.transforms.weights.sensitivity import choices_of, lone_losses

PRECISIONS = {"int8_weights": 8, "int4_weights": 4, "mixed_weights": None}  # → bits of a code
MIXED_BITS = (4, 8)  # what runtimes multiply packed
PROBE_TOKENS = 512  # on which sensitivities are measured
ACTIVITY_TOKENS = 8192  # on which the residual stream's order is chosen
NOT_FOR_WEIGHTS = {"outlier_share": 0.0}  # options that are of rounded inputs


@dataclass(frozen=True)
class WeightsPlan:
    """Bits of every matrix, 0 where it stays float; summed, what rounding each alone would lose, where measured."""

    precision: str
    bits: dict[str, int]
    predicted_loss: float | None = None
    predicted_latency_rel: float | None = None

    def to_json(self) -> dict:
        return {"precision": self.precision, "float_linears": [name for name, bits in self.bits.items() if not bits]}


@dataclass(frozen=True, eq=False)
class WeightsEvidence:
    """The text that moments are taken from, how active every column is, and how sensitive every matrix."""

    given: Given
    drafts: bool = field(default=False, init=False)  # a pass over the model is what an attempt is
    closed_form: bool = field(default=True, init=False)

    @property
    def folds(self) -> bool:
        """Whether an order of the evidence is rounded in, to be folded: by the arm that lays out anew."""
        manner = self.given.manner
        return manner.orders is None and not manner.even

    @property
    def options(self) -> dict:
        return dict(self.given.options)

    @cached_property
    def batches(self) -> list[dict]:
        """As many of the calibration batches as the option allows, evenly drawn."""
        return fewer(self.given.observed.batches, self.options["tokens"])

    @cached_property
    def activity(self) -> dict[str, torch.Tensor]:
        """Per matrix of the dense model: mean square of each column's input."""
        return column_activity(self.given.observed.model, fewer(self.batches, ACTIVITY_TOKENS), self.given.progress)

    @cached_property
    def linears(self) -> list[str]:
        """Names of the matrices; only who folds an order reads how active their columns are."""
        return list(self.activity) if self.folds else linear_names(self.given.observed.model, self.batches)

    @cached_property
    def losses(self) -> dict[str, float]:
        """Per matrix: what the dense model loses where it alone is rounded to nearest points; kept by machine."""
        observed, spec = self.given.observed, self.spec(4)
        if observed.keep_moments is None:
            return lone_losses(observed.model, fewer(self.batches, PROBE_TOKENS), spec)
        tokens = {"tokens": self.options["tokens"], "probed": PROBE_TOKENS}
        key = {"moments": observed.keep_moments.stem, "spec": str(spec), **tokens}
        found = read_kept("losses", key)
        if found is None:
            found = lone_losses(observed.model, fewer(self.batches, PROBE_TOKENS), spec)
            keep("losses", key, found)
        return found

    def spec(self, bits: int) -> Spec:
        """What a matrix of so many bits is rounded to; with 8 no shrunk range is better than the values' own."""
        # Widths at one rate for all, in no layout, are no multiples of anything.
        ragged, symmetric = self.given.manner.even, self.options["symmetric"]
        return Spec(bits, self.options["group"], symmetric, searched=bits < 8, ragged=ragged)


def weights_evidence(given: Given) -> WeightsEvidence:
    """Raises `TransformError` for a model of no family, and for options that are of rounded inputs."""
    model = given.observed.model
    if family_of(model) is None:
        raise TransformError(f"{type(model).__name__} is of no family whose Linears are known; leave quantization out")
    for name, off in NOT_FOR_WEIGHTS.items():
        if given.options[name] != off:
            raise TransformError(
                f"quantization.{name} is {given.options[name]}, which is for rounded inputs; leave it at {off} where "
                f"quantization.precision is {given.options['precision']}"
            )
    if given.options["follow"] and not given.options["compensate"]:
        raise TransformError(
            "quantization.follow is true and quantization.compensate is false: a weight is fitted by the moments that "
            "only compensation uses; set compensate to true, or follow to false"
        )
    return WeightsEvidence(given)


def plan_weights(evidence: WeightsEvidence) -> WeightsPlan:
    """Bits of every matrix: one number for all, or allocated under `mean_bits`; the most sensitive stay float."""
    options = evidence.options
    precision, kept = options["precision"], options["float_linears"]
    names, loss = evidence.linears, None
    if kept > len(names):
        raise TransformError(
            f"quantization.float_linears is {kept}, but the model has {len(names)} Linears that could be rounded; "
            "lower it"
        )
    left = sorted(names, key=lambda name: -evidence.losses[name])[:kept] if kept else []
    if PRECISIONS[precision] is None:
        bits, loss = _mixed(evidence, [name for name in names if name not in left])
    else:
        bits = dict.fromkeys(names, options["bits"] or PRECISIONS[precision])
    return WeightsPlan(precision, {name: 0 if name in left else bits[name] for name in names}, loss)


def _mixed(evidence: WeightsEvidence, names: list[str]) -> tuple[dict[str, int], float]:
    model, specs = evidence.given.observed.model, [evidence.spec(bits) for bits in MIXED_BITS]
    losses = {name: evidence.losses[name] for name in names}
    weights = sum(model.get_submodule(name).weight.numel() for name in names)
    choices = choices_of(model, losses, evidence.activity, evidence.spec(4), specs)
    chosen = allocate(choices, int(weights * evidence.options["mean_bits"] / 8))
    return {name: item.bits for name, item in chosen.items()}, sum(item.loss for item in chosen.values())


def apply_weights(evidence: WeightsEvidence, plan: WeightsPlan, model: nn.Module) -> tuple[nn.Module, TransformMeta]:
    """A rounded copy; every FFN's axis falls into the groups that its consumer's columns were rounded in."""
    options, given = evidence.options, evidence.given
    columns = Columns.in_model(find_adapter(model).axes())
    recipe = Recipe(
        spec_of=lambda name: evidence.spec(plan.bits[name]) if plan.bits.get(name) else None,
        order="descending" if evidence.folds else "stored",
        shared=_shared(columns, evidence.activity) if evidence.folds else {},
        compensate=options["compensate"],
        follow=options["follow"],
        compared=_compared(model) if evidence.folds else frozenset(),
    )
    found = round_weights(model, evidence.batches, recipe, given.progress)
    effects = {block.axis for block in find_adapter(found.model).blocks()}
    folded = {axis: perm for axis, perm in found.perms.items() if evidence.folds and axis not in effects}
    error = fold(found.model, folded, evidence.batches[0])
    ends = round_embeddings(found.model, evidence.spec(8)) if options["embeddings"] == "int8" else []
    check_scales(found.model, find_adapter(found.model).axes())
    meta = TransformMeta("quantization", options["group"], notes=plan.to_json() | _notes(found, folded, error, ends))
    names = {module: name for name, module in found.model.named_modules()}
    for block in find_adapter(found.model).blocks():
        held = found.done.get(names[block.consumer])
        if held is None or not KINDS[block.kind].tiled or block.unit != 1:
            meta.axes[block.axis] = untouched(block.axis, block.kind, block.elements)
        else:
            groups = grid_of(block.consumer).group.numpy().astype(np.int64)
            activity = found.activity.get(block.axis, np.zeros(len(groups)))
            meta.axes[block.axis] = Groups(block.axis, block.kind, groups, activity, held.error)
    return found.model, meta


def _compared(model: nn.Module) -> frozenset[str]:
    """The blocks of the middle layer: what their matrices lose in other orders is told."""
    blocks = list(find_adapter(model).blocks())
    middle = sorted(block.layer for block in blocks)[len(blocks) // 2]
    return frozenset(block.axis for block in blocks if block.layer == middle)


def _shared(columns: Columns, activity: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Activity of the axes that several matrices read at different places, such as the residual stream."""
    readers = Counter(name for read in activity for name in {axis.name for axis, _ in columns.of.get(read, ())})
    return {axis: values for axis, values in shared_activity(columns, activity).items() if readers[axis] > 1}


def _notes(found: RoundedModel, folded: dict[str, np.ndarray], error: float, ends: list[str]) -> dict:
    return {
        "linears": {name: held.to_json() for name, held in found.done.items()},
        "bits_per_weight": found.bits_per_weight if found.done else None,
        "folded": {"axes": list(folded), "max_rel_error": error},
        "embeddings": ends,
    }
