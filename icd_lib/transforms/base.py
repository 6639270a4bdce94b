"""What a transform reports about each axis it touched."""

from dataclasses import asdict, dataclass, field

import numpy as np


@dataclass
class AxisState:
    """One axis after a transform: `alive` bool (D,), `saliency` float (D,) = loss caused when the element left.

    Elements are indexed in the axis's order before the transform. `loss` is the predicted squared error of the block's
    output relative to its energy.
    """

    axis: str
    kind: str
    alive: np.ndarray
    saliency: np.ndarray
    loss: float

    @classmethod
    def untouched(cls, axis: str, kind: str, size: int) -> "AxisState":
        """An axis of `size` elements of which none was removed."""
        return cls(axis, kind, np.ones(size, dtype=bool), np.zeros(size), 0.0)

    @property
    def kept(self) -> int:
        return int(self.alive.sum())

    def to_json(self) -> dict:
        return {
            "axis": self.axis,
            "kind": self.kind,
            "size": len(self.alive),
            "kept": self.kept,
            "alive": np.flatnonzero(self.alive).tolist(),
            "saliency": [float(f"{value:.6g}") for value in self.saliency],
            "loss": self.loss,
        }


@dataclass
class TransformMeta:
    """Result of one transform: the axes' states and whether the best layout may have changed (`delta_layout`)."""

    name: str
    tile: int
    axes: dict[str, AxisState] = field(default_factory=dict)
    notes: dict = field(default_factory=dict)

    @property
    def delta_layout(self) -> bool:
        return any(not state.alive.all() for state in self.axes.values())

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "tile": self.tile,
            "delta_layout": self.delta_layout,
            "notes": self.notes,
            "axes": [state.to_json() for state in self.axes.values()],
        }


@dataclass(frozen=True)
class PrunePlan:
    """How many elements of each axis stay: `{"ffn.0": 640, "heads.0": 10, ...}` and what the tables say of it."""

    kept: dict[str, int]
    predicted_latency_rel: float | None = None
    predicted_loss: float | None = None

    def to_json(self) -> dict:
        return asdict(self)
