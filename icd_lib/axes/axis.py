"""An axis as data: which (parameter, dim) pairs must be reordered together.

A table of slots describes an axis completely, so that one short function permutes, and one compacts,
any axis of any model (the idea of git-re-basin's PermutationSpec; Ainsworth et al. 2023, section 3).
"""

from dataclasses import dataclass

import torch
from torch import nn

from icd_lib.errors import AxisError


@dataclass(frozen=True)
class Slot:
    """Indices `start .. start + size * block * copies` of dimension `dim` of a parameter or buffer belong to the axis.

    `block` consecutive indices form one element (head_dim rows per attention head, 1 per FFN neuron). The axis can lie
    there `copies` times in a row (Mamba's in_proj has its x rows, then its z rows). `partial`: other rows follow
    (so they may where `start` is above 0).
    """

    parameter: str
    dim: int
    block: int = 1
    start: int = 0
    copies: int = 1
    partial: bool = False


@dataclass(frozen=True)
class Attribute:
    """A number kept beside the weights: `module.attribute` = `per_element` × elements of the axis + `offset`."""

    module: str
    name: str
    per_element: int = 1
    offset: int = 0


@dataclass(frozen=True)
class Axis:
    """A dimension of a model whose `size` elements can be reordered without changing its function.

    `output_dims` names model outputs that carry the axis themselves (a bare encoder returns its residual stream):
    they come out in the new order. `token_maps` names the embeddings and decoders whose rows are looked up by token id.
    `fixed_because` says why the axis can be permuted but not compacted.
    """

    name: str
    kind: str
    size: int
    slots: tuple[Slot, ...]
    attributes: tuple[Attribute, ...] = ()
    output_dims: tuple[tuple[str, int], ...] = ()
    token_maps: tuple[str, ...] = ()
    fixed_because: str | None = None


def slot_tensor(model: nn.Module, slot: Slot) -> torch.Tensor:
    """The tensor a slot names, or `AxisError`."""
    owner, _, leaf = slot.parameter.rpartition(".")
    try:
        tensor = getattr(model.get_submodule(owner), leaf)
    except AttributeError as error:
        raise AxisError(
            f"the model has no parameter {slot.parameter!r}; find the axes again with icd.find_axes"
        ) from error
    return tensor


def check_axis(model: nn.Module, axis: Axis) -> None:
    """Raise `AxisError` unless every slot of `axis` fits the model's present shapes."""
    for slot in axis.slots:
        tensor = slot_tensor(model, slot)
        needed = slot.start + axis.size * slot.block * slot.copies
        have = tensor.shape[slot.dim]
        if have < needed or (have != needed and not slot.partial and slot.start == 0):
            raise AxisError(
                f"axis {axis.name!r} needs {needed} entries along dim {slot.dim} of {slot.parameter}, which has "
                f"{have}; the model was changed since the axis was found: call icd.find_axes again"
            )


def slot_index(slot: Slot, size: int, elements: torch.Tensor) -> torch.Tensor:
    """Where `elements` (indices into an axis of `size`) lie along the slot: copy after copy, block by block.

    >>> slot_index(Slot("w", 0, block=2, start=1, copies=2), 3, torch.tensor([2, 0])).tolist()
    [5, 6, 1, 2, 11, 12, 7, 8]
    """
    copies = torch.arange(slot.copies)[:, None, None] * size
    return (slot.start + (copies + elements[None, :, None]) * slot.block + torch.arange(slot.block)).reshape(-1)


def full_index(parts: list[tuple[Slot, int, torch.Tensor]], length: int) -> torch.Tensor:
    """Indices along a dimension of `length`: every (slot, size of its axis, elements) replaced, the rest as it is.

    >>> full_index([(Slot("w", 0, start=1), 3, torch.tensor([2, 0]))], 5).tolist()
    [0, 3, 1, 4]
    """
    pieces, end = [], 0
    for slot, size, elements in sorted(parts, key=lambda part: part[0].start):
        pieces += [torch.arange(end, slot.start), slot_index(slot, size, elements)]
        end = slot.start + size * slot.block * slot.copies
    return torch.cat([*pieces, torch.arange(end, length)])


def select_along(tensor: torch.Tensor, slot: Slot, size: int, elements: torch.Tensor) -> torch.Tensor:
    """Gather `elements` (indices into the axis) along the slot; indices outside the slot stay where they are."""
    index = full_index([(slot, size, elements)], tensor.shape[slot.dim])
    return tensor.detach().index_select(slot.dim, index.to(tensor.device))
