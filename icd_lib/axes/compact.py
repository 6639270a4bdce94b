"""Physically remove the dead elements of an axis, weights and metadata together."""

import numpy as np
import torch
from torch import nn

from icd_lib.axes.axis import Axis, check_axis, select_along, slot_tensor
from icd_lib.errors import AxisError


def check_alive(alive, axis: Axis) -> np.ndarray:
    """Return `alive` as a bool array of shape (axis.size,) with at least one True, or raise `AxisError`."""
    array = np.asarray(alive)
    if array.dtype != bool or array.shape != (axis.size,):
        raise AxisError(
            f"axis {axis.name!r}: alive must be a bool array of shape ({axis.size},), "
            f"got {array.dtype} of shape {array.shape}"
        )
    if not array.any():
        raise AxisError(f"axis {axis.name!r}: nothing is alive; keep at least one element")
    return array


def compact(model: nn.Module, axis: Axis, alive) -> None:
    """Keep the elements where `alive` is True (bool array of length D) and drop the rest from every slot.

    Kept elements stay in order. The model's function changes only by what the dead elements still contributed.
    Raises `AxisError` (model untouched) when `alive` does not fit or the axis cannot shrink.
    """
    kept = torch.from_numpy(np.flatnonzero(check_alive(alive, axis)))
    if axis.fixed_because:
        raise AxisError(f"axis {axis.name!r} cannot be compacted: {axis.fixed_because}")
    check_axis(model, axis)
    counters = [(model.get_submodule(entry.module), entry) for entry in axis.attributes]
    smaller = [(slot, select_along(slot_tensor(model, slot), slot, axis.size, kept)) for slot in axis.slots]
    for slot, tensor in smaller:
        owner, _, leaf = slot.parameter.rpartition(".")
        module = model.get_submodule(owner)
        old = getattr(module, leaf)
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))
        update_linear_shape(module)
    for module, attribute in counters:
        setattr(module, attribute.name, attribute.per_element * len(kept) + attribute.offset)


def update_linear_shape(module: nn.Module) -> None:
    """Make a Linear's recorded sizes agree with its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
