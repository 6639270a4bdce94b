"""The inverse of compaction: the same function at the original shapes, zeros where elements were removed."""

import copy

import numpy as np
import torch
from torch import nn

from icd_lib.axes.axis import Axis, full_index


def expand(compacted: nn.Module, original: nn.Module, axes: list[Axis], places: dict[str, np.ndarray]) -> nn.Module:
    """Copy of `original` that computes what `compacted` computes.

    places[axis][i]: position, in the original shape, of element i of the compacted axis. Axes are those of `original`.
    """
    expanded = copy.deepcopy(original)
    parts: dict[tuple[str, int], list] = {}
    for axis in axes:
        for slot in axis.slots if axis.name in places else ():
            part = (slot, axis.size, torch.as_tensor(places[axis.name]))
            parts.setdefault((slot.parameter, slot.dim), []).append(part)
    small = dict(compacted.named_parameters())
    with torch.no_grad():
        for name, parameter in expanded.named_parameters():
            grown = small[name].detach()
            for dim, length in enumerate(parameter.shape):
                if (name, dim) in parts:
                    grown = _grow(grown, dim, full_index(parts[name, dim], length), length)
            parameter.copy_(grown)
    return expanded


def _grow(tensor: torch.Tensor, dim: int, places: torch.Tensor, length: int) -> torch.Tensor:
    """`tensor` with `length` entries along `dim`: entry i at places[i], zeros where nothing goes."""
    shape = list(tensor.shape)
    shape[dim] = length
    return tensor.new_zeros(shape).index_copy_(dim, places.to(tensor.device), tensor)
