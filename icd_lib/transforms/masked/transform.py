"""A mask that comes with the model, as the loop sees it: what its zeros made dead leaves, and the function stays."""

import copy
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from torch import nn

from icd_lib.axes.double import KeepDouble, copied
from icd_lib.axes.kinds import SINGLE, granules
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.transforms.base import Given, Transform
from icd_lib.transforms.effects import Alive, TransformMeta
from icd_lib.transforms.masked.compact import TOLERANCE, silence
from icd_lib.transforms.masked.dead import Dead, find_dead

PROBED_BATCHES = 6  # a mask is in the weights; text only confirms what they say


@dataclass(frozen=True)
class MaskedPlan:
    """How many elements of each axis stay in this arm's layout, and what the tables say of it. Nothing is lost."""

    kept: dict[str, int]
    predicted_latency_rel: float
    predicted_loss: float = 0.0

    def to_json(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class MaskedEvidence:
    """Which elements of the given model are dead, in its stored order."""

    given: Given
    drafts = False  # there is nothing to choose
    closed_form = True

    @property
    def batches(self) -> list[dict]:
        """Those on which death is confirmed, and the function compared."""
        batches = self.given.observed.batches
        return batches[:: max(1, len(batches) // PROBED_BATCHES)][:PROBED_BATCHES]

    @cached_property
    def found(self) -> dict[str, Dead]:
        """Axis → its dead elements, of the kinds in `transform.axes`; one element of an axis at least is spared."""
        double = copied(self.given.observed.model).double()
        with KeepDouble():
            found = find_dead(find_adapter(double), self.batches)
        return {name: dead.sparing_one() for name, dead in found.items() if dead.axis.kind in self.given.common.axes}

    def kept(self, axis: str) -> int:
        """How many elements of an axis are left in whole tiles: of the layout that the arm keeps, or of any layout."""
        manner, dead = self.given.manner, self.found[axis]
        if manner.orders is not None:
            alive = Alive.of(axis, dead.axis.kind, ~dead.dead[manner.orders[axis]])
            return int(alive.present(manner.granule[dead.axis.kind]).sum())
        tile = (SINGLE if manner.even else granules(self.given.common.tile))[dead.axis.kind]
        return min(-(-int((~dead.dead).sum()) // tile) * tile, dead.axis.size)


class Masked(Transform):
    """Removes what the zeros of a model pruned elsewhere made dead; the mask is given, so there is one attempt."""

    name = "masked"
    options = "masked"
    panels = ("icd_lib.report.masked:dead_and_alive", "icd_lib.report.masked:removable")
    survey = "icd_lib.codesign.masked:survey"
    is_given = True

    def evidence(self, given: Given) -> MaskedEvidence:
        return MaskedEvidence(given)

    def plan(self, evidence: MaskedEvidence, strength: float, present: dict[str, int]) -> MaskedPlan:
        """What the mask makes possible, whatever `strength` is asked for."""
        findings, kept = evidence.given.findings, {axis: evidence.kept(axis) for axis in evidence.found}
        saved = sum(float(findings.tables[dead.axis.kind].saved(kept[axis])) for axis, dead in evidence.found.items())
        return MaskedPlan(kept, -saved / findings.dense_ms)

    def draft(self, evidence: MaskedEvidence, plan: MaskedPlan, model: nn.Module) -> tuple[nn.Module, TransformMeta]:
        return self.apply(evidence, plan, model, {axis: np.arange(d.axis.size) for axis, d in evidence.found.items()})

    def apply(
        self, evidence: MaskedEvidence, plan: MaskedPlan, model: nn.Module, origin: dict[str, np.ndarray]
    ) -> tuple[nn.Module, TransformMeta]:
        """Copy of `model` whose consumers read nothing of dead elements; what those always said is in the biases.

        Raises `TransformError` where nothing can leave, and where the outputs differ by more than 1e-5 relative.
        """
        self._check_worthwhile(evidence, plan)
        changed, meta = copy.deepcopy(model), TransformMeta(self.name, evidence.given.common.tile)
        for name, dead in evidence.found.items():
            here = dead.permuted(origin[name])
            silence(changed, here)
            meta.axes[name] = Alive.of(name, dead.axis.kind, ~here.dead)
        error = largest_error(changed, model, evidence.batches)
        if not error <= TOLERANCE:
            raise TransformError(
                f"without its dead elements the model's outputs differ by {error:.2e} relative (allowed "
                f"{TOLERANCE:.0e}); nothing was changed"
            )
        meta.notes["max_rel_error"] = error
        return changed, meta

    @staticmethod
    def _check_worthwhile(evidence: MaskedEvidence, plan: MaskedPlan) -> None:
        if any(plan.kept[axis] < dead.axis.size for axis, dead in evidence.found.items()):
            return
        count = sum(int(dead.dead.sum()) for dead in evidence.found.values())
        if not count:
            raise TransformError("no element is dead: zeros without structure cannot be removed, in no order")
        where = "the stored order" if evidence.given.manner.orders is not None else "any order"
        raise TransformError(
            f"{count} elements are dead, and they fill no tile of {evidence.given.common.tile} in {where}"
        )


def largest_error(model: nn.Module, reference: nn.Module, batches: list[dict]) -> float:
    """Largest relative difference of the two models' outputs on the batches, in float64."""
    pair = [copied(each).double() for each in (model, reference)]
    with KeepDouble():
        return max(outputs_error(*(model_outputs(each, batch) for each in pair)) for batch in batches)


TRANSFORM = Masked()
