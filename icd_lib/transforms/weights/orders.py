"""In which order the columns of a matrix are rounded, and how that order is folded into the model.

A matrix reads axes of the model: its columns can take only the orders that those axes can. An order that is *free* for
each matrix needs a gather at run time; one that is *folded* is an order of the axes, shared by every matrix that reads
them, and the model is permuted offline so that nothing is left to gather.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from icd_lib.axes.axis import Axis, Slot, select_along, slot_index
from icd_lib.errors import TransformError

ORDERS = ("stored", "random", "descending")
# kinds of axes that columns lie on and nothing else forbids to move
FOLDABLE = ("ffn", "v", "q_heads", "inner", "residual")


@dataclass(frozen=True)
class Columns:
    """The axes that the columns of each matrix lie on: name of the module → (axis, slot on dim 1 of its weight)."""

    of: Mapping[str, list[tuple[Axis, Slot]]]

    @classmethod
    def in_model(cls, axes: list[Axis], kinds: tuple[str, ...] = FOLDABLE) -> "Columns":
        """Those of the axes of `kinds`; an axis that outputs carry themselves stays as it is."""
        found: dict[str, list[tuple[Axis, Slot]]] = {}
        for axis in axes:
            for slot in axis.slots if axis.kind in kinds and not axis.output_dims else ():
                owner, _, leaf = slot.parameter.rpartition(".")
                if leaf == "weight" and slot.dim == 1:
                    found.setdefault(owner, []).append((axis, slot))
        return cls(found)

    def order(self, name: str, columns: int, perms: Mapping[str, np.ndarray]) -> torch.Tensor:
        """The order (gather) of the columns of matrix `name` when the axes take `perms`; those without stay."""
        index = torch.arange(columns)
        for axis, slot in self.of.get(name, ()):
            if axis.name in perms:
                index = select_along(index, _along(slot), axis.size, torch.from_numpy(perms[axis.name]))
        return index

    def evidence(self, name: str, activity: torch.Tensor) -> dict[str, np.ndarray]:
        """Axis → (D,): how active its elements are in matrix `name`, whose columns have `activity` (in,), mean 1.

        An element that lies there several times, such as a value dim that several query heads read, sums them.
        """
        activity = activity.double() / activity.double().mean().clamp_min(1e-300)
        found = {}
        for axis, slot in self.of.get(name, ()):
            index = slot_index(slot, axis.size, torch.arange(axis.size))
            found[axis.name] = activity[index].reshape(slot.copies, axis.size, slot.block).sum((0, 2)).numpy()
        return found


def _along(slot: Slot) -> Slot:
    return Slot(slot.parameter, 0, slot.block, slot.start, slot.copies, slot.partial)


def order_of(kind: str, activity: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An order (gather) of elements with `activity` (D,): as they lie, at random, or the most active first; stable.

    >>> order_of("descending", np.array([1.0, 3.0, 1.0, 2.0]), np.random.default_rng(0))
    array([1, 3, 0, 2])
    """
    if kind == "stored":
        return np.arange(len(activity))
    if kind == "random":
        return generator.permutation(len(activity))
    if kind == "descending":
        return np.argsort(-activity, kind="stable")
    raise TransformError(f"an order is one of {', '.join(ORDERS)}, got {kind!r}")
