"""Zeros that stay in a model: how many tiles an order of the axis could spare, at best and as the solver finds it.

A row that reads n of an axis's elements touches at least ⌈n / g⌉ tiles of g elements, whatever their order: no layout
of the axis does with less than the mean of that. Zeros without structure are scattered over nearly all tiles.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from icd_lib.axes.axis import Axis, slot_tensor
from icd_lib.graph.build import build_w
from icd_lib.models.families import find_adapter
from icd_lib.solver.cost import CostConfig
from icd_lib.solver.portfolio import fit_permutation
from icd_lib.transforms.masked.dead import slot_parts

WORTH_A_WORD = 0.05  # share of zeros below which nobody pruned
REFINE_STEPS = 100  # enough to see whether there is structure


@dataclass(frozen=True)
class Zeros:
    """One axis: share of zeros in the matrices along it, and the share of tiles that hold anything else.

    now: in the present order; solved: in the solver's; least: what no order undercuts.
    """

    axis: str
    kind: str
    zeros: float
    now: float
    solved: float
    least: float

    def to_json(self) -> dict:
        return dict(vars(self))


def count_zeros(model: nn.Module, tile: int, *, seed: int = 0) -> list[Zeros]:
    """Every prunable axis along which weights have more than 5 % of zeros."""
    adapter = find_adapter(model)
    axes = {axis.name: axis for axis in adapter.axes()}
    counted = []
    for item in adapter.prunable():
        axis = axes[item.axis]
        reads = np.concatenate(list(read_patterns(model, axis)))
        zeros = 1 - float(reads.mean())
        if zeros > WORTH_A_WORD and axis.size > tile:
            order = _solved(reads, tile, seed)
            now, solved = touched(reads, tile), touched(reads[:, order], tile)
            counted.append(Zeros(axis.name, axis.kind, zeros, now, min(now, solved), least_touched(reads, tile)))
    return counted


def read_patterns(model: nn.Module, axis: Axis) -> Iterator[np.ndarray]:
    """Of every matrix along the axis, bool (rows, D): which elements each row (or column) across it reads or writes."""
    for slot in axis.slots:
        tensor = slot_tensor(model, slot).detach()
        if tensor.ndim > 1:
            across = tensor.shape[1 - slot.dim] if tensor.ndim == 2 else tensor.numel() // tensor.shape[slot.dim]
            parts = slot_parts(tensor, slot, axis.size).reshape(slot.copies, axis.size, slot.block, across)
            yield (parts != 0).any(2).movedim(1, 2).reshape(-1, axis.size).numpy()


def touched(reads: np.ndarray, tile: int) -> float:
    """Share of tiles of `tile` consecutive elements that a row reads anything of, over all rows of reads (rows, D)."""
    edges = np.arange(0, reads.shape[1], tile)
    return float((np.add.reduceat(reads, edges, axis=1, dtype=np.int64) > 0).mean())


def least_touched(reads: np.ndarray, tile: int) -> float:
    """The share of tiles that no order of the elements undercuts."""
    tiles = -(-reads.shape[1] // tile)
    return float(np.mean(-(-reads.sum(1) // tile))) / tiles


def _solved(reads: np.ndarray, tile: int, seed: int) -> np.ndarray:
    """The solver's order for elements that are read together."""
    read = torch.from_numpy(reads).double()
    often = read.sum(0)
    # Read together more often than elements that have nothing to do with each other.
    excess = (read.T @ read - often[:, None] * often / len(reads)).clamp_min(0).fill_diagonal_(0.0)
    graph = build_w(sp.csr_array(excess.numpy()), kind="matrix")
    return fit_permutation(graph, CostConfig(g=tile), refine_steps=REFINE_STEPS, seed=seed)[0]
