"""Quantization as the loop sees it: which Linears stay float, and which columns want to lie together."""

import copy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import nn

from icd_lib.axes.kinds import KINDS
from icd_lib.errors import TransformError
from icd_lib.models.adapter import Block
from icd_lib.models.families import family_of, find_adapter
from icd_lib.models.quantized import QuantizedLinear, check_scales, replace_linear
from icd_lib.transforms.base import Given, Transform
from icd_lib.transforms.effects import Effect, Groups, TransformMeta, untouched
from icd_lib.transforms.quantization.calibrate import Recipe, Rounded, quantize
from icd_lib.transforms.quantization.outliers import widest
from icd_lib.transforms.quantization.ranges import fp8_steps
from icd_lib.transforms.quantization.sensitivity import fewer, lone_errors
from icd_lib.transforms.weights.transform import (
    PRECISIONS,
    WeightsEvidence,
    WeightsPlan,
    apply_weights,
    plan_weights,
    weights_evidence,
)

PROBE_TOKENS = 2048  # on which sensitivities are measured


@dataclass(frozen=True)
class QuantizationPlan:
    """Which Linears stay float; what rounding every other one alone would lose, summed.

    The tables say nothing of it: they are of the runtime in which widths are timed.
    """

    precision: str
    kept: tuple[str, ...] = ()
    predicted_loss: float | None = None
    predicted_latency_rel: float | None = None

    def to_json(self) -> dict:
        return {"precision": self.precision, "float_linears": list(self.kept)}


@dataclass(frozen=True, eq=False)
class QuantizationEvidence:
    """The text that ranges are taken from, and how sensitive every Linear is."""

    given: Given
    closed_form: bool = field(default=True, init=False)

    @property
    def drafts(self) -> bool:
        """Not where whole tiles of a layout stay float: a draft has none."""
        return not (self.given.options["outlier_share"] and self.by_tile)

    @property
    def by_tile(self) -> bool:
        """Whether a tile stays float as a whole, for an arm that keeps its layout."""
        return self.given.manner.orders is not None

    @cached_property
    def batches(self) -> list[dict]:
        """As many of the calibration batches as the option allows, evenly drawn."""
        return fewer(self.given.observed.batches, self.given.options["tokens"])

    @cached_property
    def sensitivities(self) -> dict[str, float]:
        """Per Linear: relative squared error of the last hidden state where it alone is rounded."""
        return lone_errors(self.given.observed.model, fewer(self.batches, PROBE_TOKENS))


class Quantization(Transform):
    """Rounds weights and inputs of the blocks' Linears to eight bits; the layout is what gathers columns that stay."""

    name = options = "quantization"
    trainable = False
    panels = (
        "icd_lib.report.quantization_figures:linear_errors",
        "icd_lib.report.quantization_figures:channel_ranges",
        "icd_lib.report.weights_figures:order_errors",
        "icd_lib.report.weights_figures:matrix_errors",
        "icd_lib.report.weights_figures:bits_tried",
    )

    def evidence(self, given: Given) -> QuantizationEvidence | WeightsEvidence:
        """Raises `TransformError` for a family whose models no runtime computes in eight bits, inputs too."""
        precision = given.options["precision"]
        if precision in PRECISIONS:
            return weights_evidence(given)
        if precision == "int8":
            check_family(given.observed.model)
        return QuantizationEvidence(given)

    def ladder(self, options) -> list[dict]:
        """The scenario's `bits_ladder`, the fewest bits first.

        Raises `TransformError` where another precision than mixed_weights would not read it.
        """
        bits = options["bits_ladder"]
        if bits is None:
            return [{}]
        if options["precision"] != "mixed_weights":
            raise TransformError(
                f"quantization.bits_ladder is {list(bits)} and quantization.precision is {options['precision']}; only "
                "mixed_weights takes bits from a ladder: leave it at null, or set precision to mixed_weights"
            )
        return [{"mean_bits": each} for each in sorted(set(bits))]

    def plan(
        self, evidence: QuantizationEvidence | WeightsEvidence, strength: float, present: dict[str, int]
    ) -> QuantizationPlan | WeightsPlan:
        """The most sensitive Linears stay float, as many as the scenario says, whatever the strength."""
        if isinstance(evidence, WeightsEvidence):
            return plan_weights(evidence)
        options = evidence.given.options
        if options["precision"] == "fp8_storage" and not options["float_linears"]:
            return QuantizationPlan(options["precision"])
        found = evidence.sensitivities
        if options["float_linears"] > len(found):
            raise TransformError(
                f"quantization.float_linears is {options['float_linears']}, but the model has {len(found)} Linears "
                "that could be rounded; lower it"
            )
        worst = sorted(found, key=lambda name: -found[name])
        kept, rounded = worst[: options["float_linears"]], worst[options["float_linears"] :]
        return QuantizationPlan(options["precision"], tuple(kept), float(sum(found[name] for name in rounded)))

    def draft(
        self,
        evidence: QuantizationEvidence | WeightsEvidence,
        plan: QuantizationPlan | WeightsPlan,
        model: nn.Module,
    ) -> tuple[nn.Module, TransformMeta]:
        """What `apply` does; it depends on no layout."""
        return self.apply(evidence, plan, model, {})

    def apply(
        self,
        evidence: QuantizationEvidence | WeightsEvidence,
        plan: QuantizationPlan | WeightsPlan,
        model: nn.Module,
        origin: dict[str, np.ndarray],
    ) -> tuple[nn.Module, TransformMeta]:
        """A rounded copy; an axis whose consumer has columns that stay float falls into two groups."""
        if isinstance(evidence, WeightsEvidence) and isinstance(plan, WeightsPlan):
            return apply_weights(evidence, plan, model)
        assert isinstance(evidence, QuantizationEvidence) and isinstance(plan, QuantizationPlan)
        given, options = evidence.given, evidence.given.options
        granule = max(given.manner.granule.values()) if evidence.by_tile else 1
        if plan.precision == "fp8_storage":
            stored = stored_in_fp8(model, plan.kept)
            check_scales(stored, find_adapter(stored).axes())
            return stored, TransformMeta(self.name, granule, notes=plan.to_json())
        tiled = {block.axis for block in find_adapter(model).blocks() if KINDS[block.kind].tiled}

        def left(axis: str, far: np.ndarray) -> np.ndarray | None:
            share = options["outlier_share"] if axis in tiled else 0.0
            return widest(far, share, granule, 1 if evidence.by_tile else given.common.tile) if share else None

        recipe = Recipe(options["alpha"], options["compensate"], left)
        rounded, done = quantize(model, evidence.batches, recipe, plan.kept, given.progress)
        check_scales(rounded, find_adapter(rounded).axes())
        meta = TransformMeta(self.name, granule, notes=plan.to_json() | self._notes(evidence, done))
        names = {module: name for name, module in rounded.named_modules()}
        for block in find_adapter(rounded).blocks():
            meta.axes[block.axis] = effect_of(block, done.get(names[block.consumer]))
        return rounded, meta

    def _notes(self, evidence: QuantizationEvidence, done: dict[str, Rounded]) -> dict:
        alone = evidence.sensitivities
        return {"linears": {name: found.to_json() | {"alone": alone.get(name)} for name, found in done.items()}}


def effect_of(block: Block, found: Rounded | None) -> Effect:
    """What rounding its consumer did to a block's axis: the columns that stay float are a group of their own."""
    if found is None or block.unit != 1:
        return untouched(block.axis, block.kind, block.elements)
    groups = np.zeros(block.elements, dtype=np.int64)
    if found.unrounded is not None:
        groups[found.unrounded] = 1
    return Groups(block.axis, block.kind, groups, found.spread.width.double().numpy(), found.error)


def stored_in_fp8(model: nn.Module, kept: tuple[str, ...] = ()) -> nn.Module:
    """Copy of `model` whose blocks' Linears have weights of float8_e4m3 numbers; inputs are not rounded."""
    made = copy.deepcopy(model)
    trunk = find_adapter(made).trunk()
    inside = {module for module in trunk.modules() if isinstance(module, nn.Linear)}
    for name, linear in list(made.named_modules()):
        if linear in inside and name not in kept:
            replace_linear(made, name, QuantizedLinear.of(linear, fp8_steps(linear.weight.detach())))
    return made


def check_family(model: nn.Module) -> None:
    """Raise `TransformError` where no runtime here would compute the model in eight bits."""
    family = family_of(model)
    if family is None or family.no_onnx is None:
        return
    raise TransformError(
        f"{type(model).__name__} is not quantised: {family.no_onnx}, so no runtime here computes it in eight bits; "
        "leave the section quantization out"
    )


TRANSFORM = Quantization()
