"""Rounding a weight so that what its errors do to the output is made up for by the columns that are still to come.

Optimal brain compression in a fixed order (Frantar et al. 2023, GPTQ), on second moments of the *rounded* inputs, the
most active columns first. What is not rounded, the bias among it, comes last and takes up what is left.
"""

from collections.abc import Callable

import torch

from icd_lib.transforms.sparsity.obs import solvable

BLOCK = 64  # columns whose updates of the columns behind them are applied as one product


@solvable()
def round_compensated(
    weights: torch.Tensor, gram: torch.Tensor, free: torch.Tensor, nearest: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    """The weights (out, n) on their grid, with least tr((V − W) G (V − W)ᵀ) as far as one pass over the columns gets.

    gram (n, n): damped second moments, float64; free: bool (n,), columns that are not rounded; nearest(values, column):
    the grid's nearest values (out,) for a column.
    """
    order = torch.argsort(gram.diagonal().masked_fill(free, -torch.inf), descending=True, stable=True)
    weights, rounded = weights[:, order].clone(), torch.empty_like(weights)
    root = torch.linalg.cholesky(torch.linalg.inv(gram[order][:, order]), upper=True)
    for start in range(0, len(order), BLOCK):
        end = min(start + BLOCK, len(order))
        errors = weights.new_zeros(len(weights), end - start)
        for place in range(start, end):
            column, present = int(order[place]), weights[:, place]
            rounded[:, column] = present if free[column] else nearest(present, column)
            error = errors[:, place - start] = (present - rounded[:, column]) / root[place, place]
            weights[:, place:end] -= error[:, None] * root[place, place:end]
        weights[:, end:] -= errors @ root[start:end, end:]
    return rounded
