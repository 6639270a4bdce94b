"""Removing what is dead, in whole tiles, and folding what was constant into the biases: the function stays the same."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.axes.double import KeepDouble
from icd_lib.axes.kinds import granules
from icd_lib.axes.permutation import pack_alive
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.transforms.effects import Alive
from icd_lib.transforms.masked.dead import Dead, find_dead
from icd_lib.transforms.masked.plain import plain_copy

TOLERANCE = 1e-5  # relative, float64, of every output on the user's inputs


@dataclass(frozen=True)
class Removed:
    """One axis: `size` elements before, `dead` of them, `kept` now (dead ones that fill a tile stay)."""

    axis: str
    kind: str
    size: int
    dead: int
    kept: int

    def to_json(self) -> dict:
        return dict(vars(self))


def remove_dead(
    model: nn.Module, batches: list[dict], tile: int, seed: int = 0
) -> tuple[nn.Module, list[Removed], float]:
    """Copy of `model` without dead elements, what became of every axis that can shrink, and the largest relative error.

    batches: the model's inputs, on which the copy must give the same outputs to 1e-5 relative in float64, or
    `TransformError`. tile: elements of an FFN or of inner channels that are kept together. Weights made by
    `torch.nn.utils.prune` and parametrizations become plain parameters.
    """
    plain = plain_copy(model).eval()
    double = plain_copy(plain).double()
    adapter = find_adapter(double)
    with KeepDouble():
        before = [model_outputs(double, batch) for batch in batches]
        found = find_dead(adapter, batches, seed)
    granule, removed = granules(tile), []
    for axis, dead in found.items():
        kept = [take_out(each, dead, granule[dead.axis.kind]) for each in (plain, double)][0]
        removed.append(Removed(axis, dead.axis.kind, dead.axis.size, int(dead.dead.sum()), kept))
    with KeepDouble():
        after = [model_outputs(double, batch) for batch in batches]
    error = max(outputs_error(new, old) for new, old in zip(after, before, strict=True))
    if not error <= TOLERANCE:
        raise TransformError(
            f"without its dead elements the model's outputs differ by {error:.2e} relative (allowed {TOLERANCE:.0e}); "
            "nothing was changed"
        )
    return plain, removed, error


def take_out(model: nn.Module, dead: Dead, granule: int) -> int:
    """Remove whole granules of dead elements from `model`, in place; returns how many elements are left."""
    dead = dead.sparing_one()
    axis, alive = dead.axis, ~dead.dead
    order = pack_alive(np.arange(axis.size), alive)
    there = Alive.of(axis.name, axis.kind, alive).permuted(order).present(granule)
    if there.all():
        return axis.size
    fold_constants(model, dead, order[~there])
    permute(model, axis, order)
    compact(model, axis, there)
    return int(there.sum())


def silence(model: nn.Module, dead: Dead) -> None:
    """Let the consumer read nothing of dead elements, in place: what it always got of them is in its bias then."""
    fold_constants(model, dead, np.flatnonzero(dead.dead))
    block = next((block for block in find_adapter(model).blocks() if block.axis == dead.axis.name), None)
    if block is not None:
        columns = torch.from_numpy(np.repeat(dead.dead, block.unit))
        with torch.no_grad():
            block.consumer.weight[:, columns] = 0.0


def fold_constants(model: nn.Module, dead: Dead, gone: np.ndarray) -> None:
    """Add to the consumer's bias what it got from the elements `gone`, in place."""
    block = next((block for block in find_adapter(model).blocks() if block.axis == dead.axis.name), None)
    if block is None or block.consumer.bias is None:
        return  # terms of a sum were zero, and so is what a consumer without a bias got
    weight = block.consumer.weight.detach().double().reshape(-1, dead.axis.size, block.unit)[:, gone]
    constant = dead.constant.reshape(dead.axis.size, block.unit)[gone]
    with torch.no_grad():
        block.consumer.bias += torch.einsum("oeu,eu->o", weight, constant).to(block.consumer.bias.dtype)
