"""Scale and zero of a group of columns, a pair for each row."""

from dataclasses import dataclass

import torch

from icd_lib.errors import TransformError
from icd_lib.models.grouped import check_bits

SHRUNK = tuple(round(1 - 0.05 * step, 2) for step in range(1, 11))  # of a range that is tried
_LEAST, _MOST = 2.0**-24, 65504.0  # of float16


@dataclass(frozen=True)
class Spec:
    """What one matrix is rounded to.

    bits: of a code; group: columns that share a scale, None: all of a row; symmetric: zero is the middle code, so that
    none is stored; searched: the range with least error among shrunk ones, else the values' own; half: scales are
    float16 numbers; ragged: the last group may be shorter, which engines pad, else it is refused.
    """

    bits: int = 4
    group: int | None = 64
    symmetric: bool = False
    searched: bool = True
    half: bool = True
    ragged: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits)

    @property
    def largest(self) -> int:
        return 2**self.bits - 1


def find_scales(
    values: torch.Tensor, spec: Spec, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero (rows,) of values (rows, n), both float64, with least Σ importance · (q(x) − x)² of those tried.

    importance (n,): how much an error in each column counts; None: all the same.
    """
    best, kept = None, None
    for low, high in _ranges(values, spec):
        scale, zero = _scales(low, high, spec)
        if not spec.searched and not spec.symmetric:
            return scale, zero
        error = (nearest(values, scale[:, None], zero[:, None], spec) - values).square()
        error = error.sum(1) if importance is None else error @ importance
        if best is None or kept is None:
            best, kept = error, (scale, zero)
        else:
            better = error < best
            best = torch.where(better, error, best)
            kept = torch.where(better, scale, kept[0]), torch.where(better, zero, kept[1])
    assert kept is not None
    return kept


def nearest(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, spec: Spec) -> torch.Tensor:
    """The nearest points of the grid; scale and zero broadcast against the values."""
    return ((values / scale).round_().add_(zero).clamp_(0, spec.largest).sub_(zero)).mul_(scale)


def _ranges(values: torch.Tensor, spec: Spec):
    """Pairs of ends (rows,); of a symmetric grid the first is where code 0 lies, and the second is not read."""
    low, high = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
    shares = (1.0, *SHRUNK) if spec.searched else (1.0,)
    if spec.symmetric:
        far = torch.where(high > -low, high, low)
        for share in shares:
            yield far * share, far
            yield -far * share, far
        return
    for share in shares:
        yield low * share, high * share


def _scales(low: torch.Tensor, high: torch.Tensor, spec: Spec) -> tuple[torch.Tensor, torch.Tensor]:
    if spec.symmetric:
        middle = 2 ** (spec.bits - 1)
        scale = _stored(-low / middle, spec)
        return scale, torch.full_like(scale, middle)
    scale = _stored((high - low) / spec.largest, spec)
    return scale, (-low / scale).round().clamp(0, spec.largest)


def _stored(scale: torch.Tensor, spec: Spec) -> torch.Tensor:
    """The number that is kept for a scale: float16 or float32, never 0; 1 for a group of zeros."""
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    if not spec.half:
        return scale.to(torch.float32).to(scale.dtype)
    if bool((scale.abs() > _MOST).any()):
        raise TransformError(
            f"a scale of {float(scale.abs().max()):.3g} is larger than float16 holds; scale the model's weights down"
        )
    sign = torch.where(scale < 0, -1.0, 1.0).to(scale.dtype)
    return (sign * scale.abs().clamp_min(_LEAST)).to(torch.float16).to(scale.dtype)
