"""Channels of an input made alike before one step rounds them all: centred, and scaled as SmoothQuant does.

A channel whose values lie far out or far from 0 makes the step large for all others. Taking off the middle of every
channel's range and dividing by its width to the power α moves that into the bias and into the weight's columns
(Xiao et al. 2023, section 4, for the scales; Wei et al. 2023, Outlier Suppression+, for the shifts).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_SMALLEST = 1e-6  # of a width, relative to the widest channel's


@dataclass(frozen=True, eq=False)
class Spread:
    """Least and largest value of every channel of an input, each (n,)."""

    low: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, parts: Sequence[torch.Tensor]) -> "Spread":
        """Of values, (tokens, n) each."""
        low = torch.stack([part.amin(0) for part in parts]).amin(0)
        return cls(low, torch.stack([part.amax(0) for part in parts]).amax(0))

    @property
    def middle(self) -> torch.Tensor:
        return (self.low + self.high) / 2

    @property
    def width(self) -> torch.Tensor:
        """Half of every range, never 0: a constant channel is as narrow as anything that counts."""
        half = (self.high - self.low) / 2
        return half.clamp_min(max(_SMALLEST * float(half.max()), torch.finfo(half.dtype).tiny))


def even_factors(spread: Spread, weight: torch.Tensor, alpha: float) -> torch.Tensor:
    """Factors (n,) for the channels: (largest weight)^(1−α) / width^α, 1 in the geometric mean.

    weight (out, n): of all Linears that read the input.
    """
    most = weight.abs().amax(0)
    most = most.clamp_min(max(_SMALLEST * float(most.max()), torch.finfo(most.dtype).tiny))
    factors = torch.log(most) * (1 - alpha) - torch.log(spread.width) * alpha
    return torch.exp(factors - factors.mean())
