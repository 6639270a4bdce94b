"""The caller's `quality` as the loop's judge: what it gets, and which numbers it may give."""

import copy
import math
import numbers
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.surroundings import Caller
from icd_lib.errors import ConfigError, MeasureError, NotFinite


class QualityJudge:
    """Judges by `quality` (model → percent), always of a copy: whatever is done to that, the model stays as it is.

    `values`: what it returned, the dense model's first. home: where the copies lie, as the caller's inputs do.
    """

    def __init__(
        self, quality: Callable[[nn.Module], float], caller: Caller, dense: nn.Module, home: torch.device | None = None
    ):
        self.quality, self.caller, self.home = quality, caller, home or torch.device("cpu")
        self.values = [self._ask(dense, "the dense model")]

    def __call__(self, model: nn.Module) -> Judgement:
        value, reference = self._ask(model, "a candidate"), self.values[0]
        if not math.isfinite(reference - value):
            raise NotFinite(f"quality returned {value} for a candidate and {reference} for the dense model: too far")
        self.values.append(value)
        return Judgement(reference - value, 0.0, {"quality_pct": value, "dense_quality_pct": reference})

    def _ask(self, model: nn.Module, whose: str) -> float:
        return as_percent(self.caller.call(self.quality, copy.deepcopy(model).to(self.home)), whose)

    def warn_of_fractions(self, budget_pp: float, stacklevel: int) -> None:
        """Say that a budget in points is not one in fractions, where every value lies in [0, 1]."""
        if all(0 <= value <= 1 for value in self.values):
            warnings.warn(
                f"every value of quality lies in [0, 1] (the dense model's is {self.values[0]:g}), and budget_pp="
                f"{budget_pp:g} counts percentage points: if these are fractions, return 100 times as much, or far "
                "more is lost than the budget says",
                stacklevel=stacklevel,
            )


def check_callable(value: Any, name: str, does: str) -> None:
    """Raise `ConfigError` unless `value` can be called."""
    if not callable(value):
        raise ConfigError(f"{name} takes a function that {does}; got {value!r:.60} ({type(value).__name__})")


def as_percent(value: Any, whose: str) -> float:
    """What `quality` returned as a float: a real number, also numpy's or a tensor of one; `MeasureError` otherwise.

    Of these `NotFinite` for NaN and infinity, which a broken candidate may have; what is no number is a mistake.
    """
    number = value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        number = value.item() if math.prod(value.shape) == 1 else None
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise MeasureError(
            f"quality returned {value!r:.60} ({type(value).__name__}) for {whose}; it must return a finite percentage"
        )
    try:
        number = float(number)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise NotFinite(f"quality returned {number} for {whose}; it must return a finite percentage")
    return number
