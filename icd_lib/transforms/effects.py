"""What a transform did to an axis: elements die, fall into groups, or lie on pages that are there or not.

Every effect says the same things of itself: its access graph W′, how an order is packed so that the saving is whole,
which elements are physically there afterwards, and how it moves with the axis. The loop asks for nothing else. All
arrays are in the axis's order before the transform, one entry per element.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from icd_lib.axes.permutation import pack_alive
from icd_lib.errors import TransformError
from icd_lib.graph.mask import group_graph, mask_graph

if TYPE_CHECKING:  # a table has effects too, and needs no torch
    from torch import nn

    from icd_lib.axes.axis import Axis

ALL = "all"  # in JSON: every element is left
NOWHERE = -1  # the group of an element that is touched never


@dataclass(frozen=True, eq=False)
class Effect(ABC):
    """One axis after a transform.

    axis, kind: its name and kind; saliency: float (D,), loss caused where an element was changed; loss: predicted
    squared error of the block's output relative to its energy.
    """

    axis: str
    kind: str

    tag: ClassVar[str]  # also the key of its array in JSON
    _arrays: ClassVar[dict[str, object]]  # name of each array → what an element has that is not there

    @property
    def values(self) -> np.ndarray:
        """The array that says what happened, (D,)."""
        return getattr(self, self.tag)

    @property
    def size(self) -> int:
        return len(self.values)

    @property
    def kept(self) -> int:
        """How many elements are still needed."""
        return self.size

    @property
    @abstractmethod
    def is_trivial(self) -> bool:
        """Whether every layout is as good as before."""

    @abstractmethod
    def graph(self, base):
        """W′, csr_array (D, D): what is touched together now; `base`, the axis's W before, orders within that."""

    @abstractmethod
    def packed(self, order: np.ndarray) -> np.ndarray:
        """The same order with what belongs together side by side, and what is needed first; stable otherwise."""

    def present(self, granule: int) -> np.ndarray:
        """Bool (D,): what is physically there afterwards, in granules of so many consecutive elements."""
        return np.ones(self.size, dtype=bool)

    def realise(self, model: nn.Module, axis: Axis, granule: int) -> np.ndarray:
        """Make the saving real in `model`, in place; returns `present`. The layout itself is already applied."""
        from icd_lib.axes.compact import compact

        there = self.present(granule)
        if not there.all():
            compact(model, axis, there)
        return there

    def settled(self, there: np.ndarray) -> Effect:
        """The effect once it is realised and only `there` (bool (D,), what `realise` returned) is left."""
        return self

    def permuted(self, perm: np.ndarray) -> Effect:
        """The effect on the axis in the order `perm` (gather)."""
        return replace(self, **{name: getattr(self, name)[perm] for name in self._arrays})

    def spread(self, origin: np.ndarray, size: int) -> Effect:
        """The effect on an axis of `size` elements of which `origin` (indices, in the present order) were there."""
        moved = {}
        for name, absent in self._arrays.items():
            array = getattr(self, name)
            moved[name] = np.full(size, absent, dtype=array.dtype)
            moved[name][origin] = array
        return replace(self, **moved)

    def to_json(self) -> dict:
        """Plain values; `effect_from_json` is the inverse up to the six digits of `saliency`.

        A saliency that all elements share is one number.
        """
        saliency = [float(f"{value:.6g}") for value in self.saliency]
        return {
            "axis": self.axis,
            "kind": self.kind,
            "size": self.size,
            "kept": self.kept,
            self.tag: self._listed(),
            "saliency": saliency[0] if len(set(saliency)) == 1 else saliency,
            "loss": self.loss,
        }

    def _listed(self) -> list | str:
        return self.values.tolist()

    @classmethod
    def _unlisted(cls, entry: dict) -> np.ndarray:
        return np.array(entry[cls.tag], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Alive(Effect):
    """Elements were removed: `alive` bool (D,). What is alive is touched by every token, what is dead by none.

    Realised by dropping granules that are wholly dead.
    """

    alive: np.ndarray
    saliency: np.ndarray
    loss: float

    tag = "alive"
    _arrays = {"alive": False, "saliency": 0.0}

    @classmethod
    def of(cls, axis: str, kind: str, alive: np.ndarray) -> Alive:
        """A mask of which nothing else is known."""
        return cls(axis, kind, alive, np.zeros(len(alive)), 0.0)

    @property
    def kept(self) -> int:
        return int(self.alive.sum())

    @property
    def is_trivial(self) -> bool:
        return bool(self.alive.all())

    def graph(self, base):
        return mask_graph(self.alive, base=base)

    def packed(self, order: np.ndarray) -> np.ndarray:
        return pack_alive(order, self.alive)

    def present(self, granule: int) -> np.ndarray:
        tiles = -(-self.size // granule)
        padded = np.zeros(tiles * granule, dtype=bool)
        padded[: self.size] = self.alive
        return np.repeat(padded.reshape(tiles, granule).any(1), granule)[: self.size]

    def settled(self, there: np.ndarray) -> Alive:
        """A dead element in a tile that stayed is there, and touched with the tile."""
        return replace(self, alive=there)

    def _listed(self) -> list | str:
        return alive_words(self.alive)

    @classmethod
    def _unlisted(cls, entry: dict) -> np.ndarray:
        return alive_of(entry[cls.tag], entry["size"])


class Numbered(Effect):
    """Elements have the number of what they share; those that share one are touched together, `NOWHERE` never."""

    @property
    def kept(self) -> int:
        return int((self.values != NOWHERE).sum())

    def graph(self, base):
        return group_graph(self.values, base=base)

    def packed(self, order: np.ndarray) -> np.ndarray:
        return pack_groups(order, self.values)


@dataclass(frozen=True, eq=False)
class Groups(Numbered):
    """Elements share something, such as a scale or a code book: `groups` int (D,), the number of each one's group.

    Realised by lying side by side, which the layout alone does: no weight changes.
    """

    groups: np.ndarray
    saliency: np.ndarray
    loss: float

    tag = "groups"
    _arrays = {"groups": NOWHERE, "saliency": 0.0}

    @property
    def is_trivial(self) -> bool:
        """One group for all, or a group for each, asks nothing of a layout."""
        count = len(np.unique(self.groups))
        return count in (1, self.size)


@dataclass(frozen=True, eq=False)
class Pages(Numbered):
    """Elements lie on pages that are read wholly or not at all: `pages` int (D,), -1 for what is evicted.

    Realised by whole pages: what is on none leaves where a whole granule (the hardware's page) of it lies together.
    """

    pages: np.ndarray
    saliency: np.ndarray
    loss: float

    tag = "pages"
    _arrays = {"pages": NOWHERE, "saliency": 0.0}

    @property
    def is_trivial(self) -> bool:
        return self.kept == self.size and len(np.unique(self.pages)) == 1

    def present(self, granule: int) -> np.ndarray:
        return Alive.of(self.axis, self.kind, self.pages != NOWHERE).present(granule)


def untouched(axis: str, kind: str, size: int) -> Effect:
    """An axis of `size` elements to which nothing was done."""
    return Alive.of(axis, kind, np.ones(size, dtype=bool))


EFFECTS = {effect.tag: effect for effect in (Alive, Groups, Pages)}


def effect_from_json(entry: dict) -> Effect:
    """The effect that `to_json` wrote; `TransformError` for what is none."""
    for tag, kind in EFFECTS.items():
        if tag in entry:
            values = kind._unlisted(entry)
            saliency = np.broadcast_to(np.array(entry["saliency"], dtype=np.float64), values.shape).copy()
            return kind(entry["axis"], entry["kind"], values, saliency, entry["loss"])
    raise TransformError(f"an effect has one of {', '.join(EFFECTS)}; this one has {', '.join(entry)}")


def alive_words(alive: np.ndarray) -> list[int] | str:
    """Elements that are left, for JSON: their indices, or `ALL`; `alive_of` is the inverse.

    >>> alive_words(np.array([True, False, True])), alive_words(np.array([True, True]))
    ([0, 2], 'all')
    """
    return ALL if alive.all() else np.flatnonzero(alive).tolist()


def alive_of(said: list[int] | str, size: int) -> np.ndarray:
    """Bool (size,): what `alive_words` said.

    >>> alive_of([0, 2], 3).tolist(), alive_of("all", 2).tolist()
    ([True, False, True], [True, True])
    """
    return np.ones(size, dtype=bool) if isinstance(said, str) else np.isin(np.arange(size), said)


@dataclass(frozen=True)
class TransformMeta:
    """Result of one transform: what happened to each axis, and whether the best layout may have changed."""

    name: str
    tile: int
    axes: dict[str, Effect] = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    @property
    def touched(self) -> dict[str, Effect]:
        """The axes whose best layout may have changed."""
        return {axis: effect for axis, effect in self.axes.items() if not effect.is_trivial}

    @property
    def delta_layout(self) -> bool:
        return bool(self.touched)

    def permuted(self, perms: dict[str, np.ndarray]) -> TransformMeta:
        """The same on axes in the order `perms`."""
        return replace(self, axes={axis: effect.permuted(perms[axis]) for axis, effect in self.axes.items()})

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "tile": self.tile,
            "delta_layout": self.delta_layout,
            "notes": self.notes,
            "axes": [effect.to_json() for effect in self.axes.values()],
        }

    @classmethod
    def from_json(cls, entry: dict) -> TransformMeta:
        """The meta that `to_json` wrote."""
        effects = (effect_from_json(item) for item in entry["axes"])
        return cls(entry["name"], entry["tile"], {effect.axis: effect for effect in effects}, entry["notes"])


def pack_groups(order: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The same order with every group side by side, groups by the mean of their places, group -1 last; stable.

    >>> pack_groups(np.arange(6), np.array([1, 0, 1, -1, 0, 0]))
    array([0, 2, 1, 4, 5, 3])
    """
    labels, inside = np.unique(groups[order], return_inverse=True)
    middle = np.bincount(inside, weights=np.arange(len(order))) / np.bincount(inside)
    middle[labels == NOWHERE] = np.inf
    rank = np.argsort(np.argsort(middle, kind="stable"), kind="stable")
    return order[np.argsort(rank[inside], kind="stable")]
