"""What the compiled search works on: the scaled graph, the price of a pair of positions, and a layout."""

from typing import NamedTuple

import numpy as np

from icd_lib.axes.permutation import invert_permutation
from icd_lib.solver.cost import CostConfig, block_of_position, distance_penalty


class Problem(NamedTuple):
    """A graph scaled to sum_{i<j} w_ij = 1 and the terms of J (see `icd_lib.solver.kernels`).

    indptr int64, indices int32, data float64: CSR of w; degree (D,); block int32 (D,) of a position; table (D,): price
    of a distance in positions (C and R_align); prev int32 (D,) previous positions; mu, spread, stab, h: scalars.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    degree: np.ndarray
    block: np.ndarray
    table: np.ndarray
    prev: np.ndarray
    mu: float
    spread: float
    stab: float
    h: float


class Layout(NamedTuple):
    """pos int32 (D,): position of each element; perm int32 (D,): its inverse; block_degree (k,)."""

    pos: np.ndarray
    perm: np.ndarray
    block_degree: np.ndarray


def distance_price(D: int, cost: CostConfig) -> np.ndarray:
    """alpha phi(d // g) / phi((D - 1) // g) of every distance d in positions, float64 (D,): C's share of the price."""
    apart = np.arange(D)
    longest = float(distance_penalty((D - 1) // cost.g, cost))
    return cost.alpha * distance_penalty(apart // cost.g, cost) / longest if longest > 0 else np.zeros(D)


def build_problem(graph, cost: CostConfig, pi_prev=None) -> Problem:
    """`Problem` of a graph that `check_w` returned and that has an edge."""
    from icd_lib.solver import kernels

    D = graph.shape[0]
    degree = kernels.sum_rows(graph.indptr, graph.data)
    weight = degree.sum() / 2
    stab = 0.0 if pi_prev is None else cost.gamma_s / D
    prev = np.arange(D) if pi_prev is None else invert_permutation(pi_prev)
    return Problem(
        graph.indptr.astype(np.int64),
        graph.indices.astype(np.int32, copy=False),
        graph.data / weight,
        degree / weight,
        block_of_position(D, cost.k).astype(np.int32),
        distance_price(D, cost) + cost.beta * (np.arange(D) % cost.v != 0),
        prev.astype(np.int32),
        float(cost.mu),
        float(cost.mu * cost.gamma / 4),
        float(stab),
        float(cost.h),
    )


def build_layout(problem: Problem, pi: np.ndarray) -> Layout:
    """`Layout` of pi, int (D,); a copy."""
    pos = invert_permutation(np.asarray(pi))
    block_degree = np.bincount(problem.block[pos], weights=problem.degree, minlength=int(problem.block[-1]) + 1)
    return Layout(pos.astype(np.int32), np.asarray(pi).astype(np.int32), block_degree)
