"""What a mask that came with the model makes dead, and what cannot leave: told before anything is changed."""

import copy

from torch import nn

from icd_lib.axes.axis import Axis, slot_tensor
from icd_lib.axes.kinds import granules
from icd_lib.codesign.zeros import WORTH_A_WORD, Zeros, count_zeros
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.records.masked import MaskedAxis
from icd_lib.transforms.base import Given
from icd_lib.transforms.effects import Alive
from icd_lib.transforms.masked.compact import take_out
from icd_lib.transforms.masked.dead import slot_parts
from icd_lib.transforms.masked.transform import MaskedEvidence


def survey(given: Given) -> dict:
    """What graph/masked.json holds: {"tile", "axes"}; `TransformError` where the model was not pruned at all."""
    evidence, dense, tile = MaskedEvidence(given), given.observed.model, given.common.tile
    axes = {axis.name: axis for axis in find_adapter(dense).axes()}
    before = {name: share_of_zeros(dense, axes[name]) for name in evidence.found}
    given.progress("what the zeros of the model make dead")
    if not any(dead.dead.any() for dead in evidence.found.values()) and max(before.values(), default=0) < WORTH_A_WORD:
        raise TransformError(
            f"nothing is dead in this {type(dense).__name__}: no {_words(evidence)} has weights that are all zero, and "
            f"at most {max(before.values(), default=0):.1%} of the weights along any axis are; it was not pruned. Name "
            "one that was with model.checkpoint, or prune this one here: leave the section masked out"
        )
    smaller = copy.deepcopy(dense)
    granule = granules(tile)
    for dead in evidence.found.values():
        take_out(smaller, dead, granule[dead.axis.kind])
    given.progress("whether an order could gather the zeros that stay")
    bounds = {entry.axis: entry for entry in count_zeros(smaller, tile)}
    narrowed = {axis.name: axis for axis in find_adapter(smaller).axes()}
    found = [
        MaskedAxis(
            name,
            dead.axis.kind,
            dead.axis.size,
            int(dead.dead.sum()),
            evidence.kept(name),
            int(Alive.of(name, dead.axis.kind, ~dead.dead).present(granule[dead.axis.kind]).sum()),
            before[name],
            share_of_zeros(smaller, narrowed[name]),
            **_bound(bounds.get(name)),
        )
        for name, dead in evidence.found.items()
    ]
    return {"tile": tile, "axes": [vars(entry) for entry in found]}


def share_of_zeros(model: nn.Module, axis: Axis) -> float:
    """Share of single weights that are zero, over all matrices along the axis."""
    slots = [slot for slot in axis.slots if slot_tensor(model, slot).ndim > 1]
    parts = [slot_parts(slot_tensor(model, slot).detach(), slot, axis.size) for slot in slots]
    zeros, weights = sum(int((part == 0).sum()) for part in parts), sum(part.numel() for part in parts)
    return zeros / weights if weights else 0.0


def _bound(entry: Zeros | None) -> dict[str, float]:
    return {} if entry is None else {"now": entry.now, "solved": entry.solved, "least": entry.least}


def _words(evidence: MaskedEvidence) -> str:
    singular = {"ffn": "neuron", "heads": "head", "inner": "channel", "state": "state dimension"}
    return " or ".join(dict.fromkeys(singular[dead.axis.kind] for dead in evidence.found.values()))
