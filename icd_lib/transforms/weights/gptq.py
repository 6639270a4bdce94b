"""A weight rounded in groups of columns, each column's error made up for by those still to come.

GPTQ (Frantar et al. 2023, algorithm 1): with G = XᵀX of the inputs, damped, and R the upper Cholesky factor of G⁻¹, the
columns are rounded in order; column j's error (w_j − q_j) / R_jj is taken off the columns behind it along R_j. A
group's scale is found when its first column comes, from the weights as they are by then. So an order decides which
columns share a scale, and whose errors can still be made up for.

Any order can be asked for. The groups then are stretches *of that order*: columns that lie so need no gather.
"""

from dataclasses import dataclass

import torch

from icd_lib.errors import TransformError
from icd_lib.models.grouped import GroupGrid, check_group
from icd_lib.transforms.sparsity.obs import solvable
from icd_lib.transforms.weights.grids import Spec, find_scales, nearest

BLOCK = 64  # columns whose updates of the columns behind them are applied as one product
DAMPING = 0.01  # of the moments, relative to their mean diagonal


@dataclass(frozen=True, eq=False)
class Rounded:
    """A weight on its grid: values (out, in) float64, and the grid, both in the columns' own order."""

    values: torch.Tensor
    grid: GroupGrid


def round_in_groups(
    weights: torch.Tensor,
    gram: torch.Tensor | None,
    spec: Spec,
    order: torch.Tensor | None = None,
    name: str = "weight",
) -> Rounded:
    """The weights (out, in) rounded in groups of the `order` (gather; None: as they lie).

    One pass over the columns toward the least tr((V − W) G (V − W)ᵀ).
    gram (in, in): second moments of the inputs, float64, not damped; None: every weight to its nearest point.
    Raises `TransformError` where the group does not divide the columns, or a number is not finite.
    """
    columns = weights.shape[1]
    group = spec.group or columns
    if not spec.ragged:
        check_group(columns, group, name)
    for what, numbers in (("weights", weights), ("second moments", gram)):
        if numbers is not None and not bool(numbers.isfinite().all()):
            raise TransformError(f"{what} of {name!r} are not finite; take weights and calibration text that give such")
    order = torch.arange(columns) if order is None else order
    left = weights.double().T[order].contiguous()  # columns first: one of them is a stretch of memory
    if gram is None:
        held, scales, zeros = _plainly(left, spec, group)
    else:
        held, scales, zeros = _compensated(left, gram[order][:, order], spec, group)
    values, numbers = torch.empty_like(left), torch.empty(columns, dtype=torch.int32)
    values[order] = held
    numbers[order] = (torch.arange(columns) // group).to(torch.int32)
    scale, zero = torch.stack(scales, 1), torch.stack(zeros, 1).to(torch.uint8)
    return Rounded(values.T.contiguous(), GroupGrid(spec.bits, scale, zero, numbers))


@solvable()
def inverse_root(gram: torch.Tensor, damping: float = DAMPING) -> torch.Tensor:
    """R upper triangular with RᵀR = (G + damping · mean(diag G) · I)⁻¹; the damping is 1 where G is 0.

    With the rows and columns backwards, a factor L of G gives G = U Uᵀ with U upper, and R = U⁻¹: no G⁻¹ is formed.
    """
    mean = float(gram.diagonal().mean()) or 1.0
    unit = torch.eye(len(gram), dtype=gram.dtype)
    root = torch.linalg.cholesky((gram + damping * mean * unit).flip(0, 1)).flip(0, 1)
    return torch.linalg.solve_triangular(root, unit, upper=True)


def relative_error(weights: torch.Tensor, values: torch.Tensor, gram: torch.Tensor) -> float:
    """tr((V − W) G (V − W)ᵀ) / tr(W G Wᵀ): squared error of the output, relative to its energy."""
    lost, weights = (values - weights).double(), weights.double()
    return float(((lost @ gram) * lost).sum()) / max(float(((weights @ gram) * weights).sum()), 1e-300)


def _plainly(left: torch.Tensor, spec: Spec, group: int) -> tuple[torch.Tensor, list, list]:
    held, scales, zeros = torch.empty_like(left), [], []
    whole = len(left) // group * group
    parts = left[:whole].reshape(-1, group, left.shape[1])
    for part, place in ((parts, slice(0, whole)), (left[None, whole:], slice(whole, len(left)))):
        if part.numel():
            scale, zero = find_scales(part.transpose(1, 2).reshape(-1, part.shape[1]), spec)
            scale, zero = scale.view(len(part), 1, -1), zero.view(len(part), 1, -1)
            held[place] = nearest(part, scale, zero, spec).reshape(-1, left.shape[1])
            scales += list(scale[:, 0])
            zeros += list(zero[:, 0])
    return held, scales, zeros


def _compensated(left: torch.Tensor, gram: torch.Tensor, spec: Spec, group: int) -> tuple[torch.Tensor, list, list]:
    """`left` (in, out) is used up."""
    root, held, scales, zeros = inverse_root(gram), torch.empty_like(left), [], []
    for start in range(0, len(left), group):
        end = min(start + group, len(left))
        scale, zero = find_scales(left[start:end].T, spec, 1 / root.diagonal()[start:end].square())
        for first in range(start, end, BLOCK):
            last = min(first + BLOCK, end)
            part, corner = left[first:last], root[first:last, first:last]
            errors = torch.empty_like(part)
            for place in range(last - first):
                held[first + place] = nearest(part[place], scale, zero, spec)
                errors[place] = (part[place] - held[first + place]) / corner[place, place]
                part[place + 1 :].addr_(corner[place, place + 1 :], errors[place], alpha=-1)
            left[last:].addmm_(root[first:last, last:].T, errors, alpha=-1)
        scales.append(scale)
        zeros.append(zero)
    return held, scales, zeros
