"""What the rest of the software asks of modules that hold their weight on a grid, one row for each sort of grid."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Holding:
    """A sort of grid; tensors are named by their leaf (`weight`, not `layers.0.weight`).

    mark: the leaf that names such a module in a file, with its dot; holds(module): whether it is one
    rows, columns: tensors with an entry for each row or column of the weight, along dim 0, which go where those go
    saved_bytes(module): how many bytes fewer its file takes than its tensors
    packed(module): what its file holds instead of tensors (leaf → tensor; None: not written)
    unpacked(module, tensors): the inverse: tensors of the module from those of the file
    installed(stock, shapes): an empty one in the place of a stock module, from the shapes in the file
    like(original, module): one of the same sort for the weight of `original`
    """

    mark: str
    holds: Callable[[nn.Module], bool]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    saved_bytes: Callable[[nn.Module], int]
    packed: Callable[[nn.Module], dict[str, torch.Tensor | None]]
    unpacked: Callable[[nn.Module, Tensors], dict[str, torch.Tensor]]
    installed: Callable[[nn.Module, Mapping[str, list[int]]], nn.Module]
    like: Callable[[nn.Module, nn.Module], nn.Module]


def fixed(tensor: torch.Tensor) -> nn.Parameter:
    """A parameter without gradient, which axes, files and copies find like any other; integers may be one."""
    return nn.Parameter(tensor, requires_grad=False)
