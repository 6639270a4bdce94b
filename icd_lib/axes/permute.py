"""Reorder one axis of a model in place; the function the model computes does not change."""

import torch
from torch import nn

from icd_lib.axes.axis import Axis, check_axis, select_along, slot_tensor
from icd_lib.axes.permutation import check_permutation, invert_permutation
from icd_lib.axes.vocab import apply_token_map, install_token_map


def permute(model: nn.Module, axis: Axis, pi) -> None:
    """Apply `perm[new_position] = old_index` to every slot of `axis`; checks first, then changes all of them.

    Raises `AxisError` (model untouched) when the permutation or the axis does not fit.
    """
    perm = torch.from_numpy(check_permutation(pi, axis.size, f"axis {axis.name!r}"))
    check_axis(model, axis)
    replaced = [(slot_tensor(model, slot), slot) for slot in axis.slots]
    for tensor, slot in replaced:
        with torch.no_grad():
            tensor.copy_(select_along(tensor, slot, axis.size, perm))
    inverse = torch.from_numpy(invert_permutation(perm.numpy()))
    for name in axis.token_maps:
        install_token_map(model.get_submodule(name))
        apply_token_map(model.get_submodule(name), inverse)
