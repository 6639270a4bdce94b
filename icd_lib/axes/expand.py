"""The inverse of compaction: the same function at the original shapes, zeros where elements were removed."""

import copy

import numpy as np
import torch
from torch import nn

from icd_lib.axes.axis import Axis, slot_tensor


def expand(compacted: nn.Module, original: nn.Module, axes: list[Axis], places: dict[str, np.ndarray]) -> nn.Module:
    """Copy of `original` that computes what `compacted` computes.

    places[axis][i]: position, in the original shape, of element i of the compacted axis. Axes are those of `original`.
    """
    expanded = copy.deepcopy(original)
    slots = {slot.parameter: (axis, slot) for axis in axes if axis.name in places for slot in axis.slots}
    small = dict(compacted.named_parameters())
    with torch.no_grad():
        for name, parameter in expanded.named_parameters():
            if name not in slots:
                parameter.copy_(small[name])
                continue
            axis, slot = slots[name]
            rows = torch.as_tensor(places[axis.name])[:, None] * slot.block + torch.arange(slot.block)
            target = slot_tensor(expanded, slot)
            target.zero_()
            target.index_copy_(slot.dim, rows.reshape(-1) + slot.start, small[name].detach())
    return expanded
