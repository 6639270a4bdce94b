"""A lower bound on J: how far from optimal a layout can be at most."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from icd_lib.axes.permutation import invert_permutation
from icd_lib.graph.contract import check_w
from icd_lib.solver.cost import CostConfig, score_positions
from icd_lib.solver.problem import build_problem
from icd_lib.solver.scale import on_scale

EXHAUSTIVE_SIZE = 9
# What elements cost at positions is held dense, D x D; above this every element gets its best position instead.
ASSIGNMENT_SIZE = 2048
ROUNDING = 1e-9


def lower_bound(W, cost: CostConfig = CostConfig()) -> tuple[float, str]:  # noqa: B008 (frozen)
    """(bound, how): J of no layout of W (csr (D, D)) is below `bound`; how is "exhaustive", "assignment" or "elements".

    Up to 9 elements every layout is tried and the bound is the optimum. Otherwise (Gilmore 1962, Lawler 1963):

    Up to the constant of gamma, J is the sum over edges of w_ij P(p_i, p_j), where P(p, q) = alpha phi(|p - q| // g) /
    phi((D - 1) // g) + beta [p != q mod v] - mu [same block] and sum_{i<j} w_ij = 1, plus mu gamma / 4 sum_b K_b^2 with
    sum_b K_b = 2, plus gamma_s R_stab.
    1. sum_b K_b^2 >= 4 / k (Cauchy-Schwarz) and R_stab >= 0.
    2. Wherever element i lies, its neighbours lie at distinct other positions. If i is at p, its edges cost at least
       l_ip, the sum of products of its weights in falling and the prices P(p, .) in rising order: no other pairing of
       weights with distinct positions is cheaper (rearrangement inequality).
    3. Every edge is counted at both ends, and elements take distinct positions, so
       sum_{i<j} w_ij P >= 1/2 min over assignments i -> p of sum_i l_i,p(i) >= 1/2 sum_i min_p l_ip.
    The first minimum is "assignment". "elements" (large graphs) is the second, with prices as if every position had two
    others at every distance, all in its own block: no real position has cheaper ones.

    Raises `SolverNotConverged` on a bad W.
    """
    from icd_lib.solver import kernels

    graph = on_scale(check_w(W))
    D = graph.shape[0]
    if graph.nnz == 0:
        return 0.0, "exhaustive"
    problem = build_problem(graph, cost)
    constant = problem.spread * 4 / int(cost.k)
    if D <= EXHAUSTIVE_SIZE:
        weights = np.zeros((D, D))
        weights[np.repeat(np.arange(D), np.diff(problem.indptr)), problem.indices] = problem.data
        best = kernels.best_of_all(weights, problem, np.arange(D))
        return score_positions(graph, invert_permutation(best), cost).J, "exhaustive"
    weights, most = sorted_weights(problem), int(np.diff(problem.indptr).max())
    if D <= ASSIGNMENT_SIZE:
        kinds, kind = rank_prices(problem, most)
        prices = kernels.sorted_products(problem.indptr, weights, kinds)[:, kind]
        rows, cols = linear_sum_assignment(prices)
        return float(prices[rows, cols].sum() / 2 + constant - ROUNDING), "assignment"
    cheapest = np.sort(np.repeat(problem.table[1:] - problem.mu, 2))[None, :most]
    return float(kernels.sorted_products(problem.indptr, weights, cheapest).sum() / 2 + constant - ROUNDING), "elements"


def sorted_weights(problem) -> np.ndarray:
    """The weights of every row in falling order, in the places of `problem.data`."""
    rows = np.repeat(np.arange(len(problem.degree)), np.diff(problem.indptr))
    return problem.data[np.lexsort((-problem.data, rows))]


def rank_prices(problem, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(kinds, kind (D,)): the `most` lowest prices P(p, .) in rising order, once for positions with the same ones."""
    D = len(problem.degree)
    rows = np.empty((D, min(most, D - 1)))
    at = np.arange(D)
    for p in range(D):
        price = problem.table[np.abs(at - p)] - problem.mu * (problem.block == problem.block[p])
        price[p] = np.inf
        rows[p] = np.sort(np.partition(price, rows.shape[1] - 1)[: rows.shape[1]])
    return np.unique(rows, axis=0, return_inverse=True)
