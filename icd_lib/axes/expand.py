"""The inverse of compaction: the same function at the original shapes, zeros where elements were removed."""

import copy

import numpy as np
import torch
from torch import nn

from icd_lib.axes.axis import Axis, Slot, full_index


def expand(compacted: nn.Module, original: nn.Module, axes: list[Axis], places: dict[str, np.ndarray]) -> nn.Module:
    """Copy of `original` that computes what `compacted` computes.

    places[axis][i]: position, in the original shape, of element i of the compacted axis. Axes are those of `original`.
    """
    expanded = copy.deepcopy(original)
    slots: dict[str, list] = {}
    for axis in axes:
        for slot in axis.slots if axis.name in places else ():
            slots.setdefault(slot.parameter, []).append((axis, slot))
    small = dict(compacted.named_parameters())
    with torch.no_grad():
        for name, parameter in expanded.named_parameters():
            grown = small[name].detach()
            for axis, slot in slots.get(name, ()):
                grown = _grow(grown, slot, axis.size, torch.as_tensor(places[axis.name]), parameter.shape[slot.dim])
            parameter.copy_(grown)
    return expanded


def _grow(tensor: torch.Tensor, slot: Slot, size: int, elements: torch.Tensor, length: int) -> torch.Tensor:
    """`tensor` with `length` entries along the slot's dim, zeros where the axis (of `size`) has no element."""
    shape = list(tensor.shape)
    shape[slot.dim] = length
    return tensor.new_zeros(shape).index_copy_(slot.dim, full_index(slot, size, elements, length), tensor)
