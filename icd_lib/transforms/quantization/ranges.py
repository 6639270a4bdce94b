"""Which grid an input and the rows of a weight are rounded to."""

import math
from collections.abc import Iterable

import torch

from icd_lib.models.quantized import LARGEST, LARGEST_FP8, LEVELS

BINS = 8192
SHRUNK = tuple(round(1 - 0.05 * step, 2) for step in range(1, 15))  # of a range that is tried


def input_grid(low: float, high: float) -> tuple[float, int]:
    """Step and zero of uint8 for values from `low` to `high`; 0 is always one of them.

    >>> input_grid(-1.0, 1.55)
    (0.01, 100)
    >>> input_grid(0.0, 0.0)
    (1.0, 0)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if not math.isfinite(high - low) or high == low:
        return 1.0, 0
    step = round((high - low) / LEVELS, 12) or (high - low) / LEVELS
    return step, min(max(round(-low / step), 0), LEVELS)


def least_error_grid(parts: Iterable[torch.Tensor], weights: torch.Tensor) -> tuple[float, int]:
    """Step and zero for which Σ weights · (q(x) − x)² is least among ranges of the values, cut at either end.

    parts: all values, as often as asked for, (tokens, n) each; weights (n,): how much an error of each channel counts.
    Errors are those of the middles of `BINS` bins.
    """
    low = min((float(part.min()) for part in parts), default=0.0)
    high = max((float(part.max()) for part in parts), default=0.0)
    if not low < high:
        return input_grid(low, high)
    counts, width = torch.zeros(BINS, dtype=torch.float64), (high - low) / (BINS - 1)
    for part in parts:
        places = ((part - low) / width).round().long().flatten()
        counts += torch.bincount(places, weights.double().expand(part.shape).flatten(), minlength=BINS)
    middles = low + width * torch.arange(BINS)

    def error(low: float, high: float) -> float:
        step, zero = input_grid(low, high)
        rounded = torch.fake_quantize_per_tensor_affine(middles, step, zero, 0, LEVELS)
        return float((rounded - middles).double().square() @ counts)

    least = error(low, high)
    for shrinks_high in (True, False):
        start = (low, high)
        for share in SHRUNK:
            tried = (low, start[1] * share) if shrinks_high else (start[0] * share, high)
            if (found := error(*tried)) < least:
                least, (low, high) = found, tried
    return input_grid(low, high)


def row_steps(weight: torch.Tensor, largest: float = LARGEST) -> torch.Tensor:
    """One step of every row's grid (out,): its largest weight over the largest code; 1 for a row of zeros.

    >>> row_steps(torch.tensor([[127.0, -254.0], [0.0, 0.0]])).tolist()
    [2.0, 1.0]
    """
    most = weight.abs().amax(1)
    return torch.where(most > 0, most / largest, torch.ones_like(most))


def fp8_steps(weight: torch.Tensor) -> torch.Tensor:
    """The same for float8_e4m3."""
    return row_steps(weight, LARGEST_FP8)
