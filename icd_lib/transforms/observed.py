"""What is known of a dense model before anything changes: what it does on text, and what an earlier stage found out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from icd_lib.axes.kinds import SINGLE
from icd_lib.axes.permutation import hash_permutation
from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter
from icd_lib.transforms.distill import TeacherStates
from icd_lib.transforms.sparsity.moments_file import kept_moments, kept_paths
from icd_lib.transforms.sparsity.obs import Elimination, Moments
from icd_lib.transforms.sparsity.prune import consumer_moments
from icd_lib.transforms.sparsity.sensitivity import eliminations
from icd_lib.transforms.streams import Goals

if TYPE_CHECKING:
    from icd_lib.transforms.sparsity.allocate import LatencyTable, LossCurve


@dataclass(frozen=True, eq=False)
class Observed:
    """The dense model on its calibration batches. Everything is computed on first use and the same for every attempt.

    ridge: the damping of `element_paths`; keep_moments: the file that holds the moments, or will, the paths beside it.
    """

    model: nn.Module
    batches: list[dict]
    distill_batches: list[dict]
    ridge: float = 0.01
    keep_moments: Path | None = None

    @cached_property
    def adapter(self) -> Adapter:
        return find_adapter(self.model)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Second moments of what every block's consumer reads and adds."""
        if self.keep_moments is None:
            return consumer_moments(self.adapter, self.batches)
        return kept_moments(self.keep_moments, lambda: consumer_moments(self.adapter, self.batches))

    @cached_property
    def goals(self) -> Goals:
        """Residual sums on the calibration batches."""
        return Goals(self.adapter, self.batches)

    @cached_property
    def teacher_states(self) -> TeacherStates:
        """Hidden states on the distillation batches."""
        return TeacherStates(self.adapter, self.distill_batches)

    @cached_property
    def element_paths(self) -> dict[str, Elimination]:
        """In which order single elements of every axis can go, and what each costs."""
        return self._kept(f"{self.ridge!r}", lambda: eliminations(self.adapter, self.moments, SINGLE, self.ridge, {}))

    def granule_paths(
        self, granule: Mapping[str, int], orders: Mapping[str, np.ndarray], ridge: float
    ) -> dict[str, Elimination]:
        """The same of whole granules (`granule[kind]` elements) in the layout `orders[axis]`."""
        case = [dict(granule), {axis: hash_permutation(order) for axis, order in orders.items()}]
        digest = hashlib.sha256(json.dumps(case, sort_keys=True).encode()).hexdigest()
        return self._kept(
            f"{ridge!r}-{digest[:24]}",
            lambda: eliminations(self.adapter, self.moments, dict(granule), ridge, dict(orders)),
        )

    def _kept(self, name: str, compute: Callable[[], dict[str, Elimination]]) -> dict[str, Elimination]:
        if self.keep_moments is None:
            return compute()
        return kept_paths(self.keep_moments.with_name(f"{self.keep_moments.stem}-paths-{name}.safetensors"), compute)


@dataclass(frozen=True, eq=False)
class Findings:
    """Measured before a loop starts.

    tables: milliseconds saved by narrower axes on this machine, per axis kind; dense_ms: of the dense model; rates: per
    axis, what an error there does to the output; curves: predicted loss of single elements, if already computed.
    """

    tables: dict[str, LatencyTable] = field(default_factory=dict)
    dense_ms: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    curves: list[LossCurve] | None = None
