"""Local search on the true J from a given layout: whole tiles first, then annealed swaps, then descent."""

import time
from dataclasses import dataclass

import numpy as np

from icd_lib.axes.permutation import invert_permutation
from icd_lib.solver.cost import CostConfig, block_of_position, distance_penalty

PROPOSALS_PER_STEP = 512
STEPS_PER_CLOCK_CHECK = 50
# Temperatures in units of 1 / (D sqrt(mean degree)): J is of order 1, an element's share of it is 1 / D, and a sum over
# its edges fluctuates by the root of their number. Values found on co-activation graphs of trained encoders.
HOT, COLD = 0.6, 0.024
# The last fifth of the steps only goes downhill.
DESCENT_SHARE = 0.2
# A move must gain more than the rounding of its own price.
MARGIN = 1e-13


@dataclass(frozen=True)
class Refined:
    """A refined layout: pi int64 (D,), steps done, trades made, and whether the deadline cut the search short."""

    pi: np.ndarray
    steps: int
    trades: int
    timed_out: bool


def refine_layout(
    graph, pi: np.ndarray, cost: CostConfig, *, steps: int, seed: int, pi_prev=None, deadline: float | None = None
) -> Refined:
    """Search around layout pi (int64 (D,)) of a graph that `check_w` returned.

    A step is 512 proposed swaps of two elements, priced exactly; between steps the clock is read against `deadline`
    (time.perf_counter seconds), so that the path depends on the seed alone. One pass of tile trades comes first when it
    costs no more than the steps do. Deterministic for a seed; the result may be worse than pi (annealing): compare.
    """
    from icd_lib.solver import kernels  # compiled code loads on first use

    problem, layout = build_problem(graph, pi, cost, pi_prev)
    D, g = len(pi), int(cost.g)
    trades = 0
    if _tiles_pay(D, g, steps):
        for tile in range(D // g):
            if _is_late(deadline):
                return Refined(layout[1].astype(np.int64), 0, trades, True)
            trades += kernels.descend_tiles(problem, layout, g, tile, tile + 1, MARGIN)
    state = np.array([seed % 2**64], dtype=np.uint64)
    near = min(2 * g, D - 1)
    unit = 1 / (D * np.sqrt(max(graph.nnz / D, 1.0)))
    hot_steps = steps - int(steps * DESCENT_SHARE)
    total = max(hot_steps * PROPOSALS_PER_STEP, 1)
    for first in range(0, steps, STEPS_PER_CLOCK_CHECK):
        if _is_late(deadline):
            return Refined(layout[1].astype(np.int64), first, trades, True)
        last = min(first + STEPS_PER_CLOCK_CHECK, steps)
        for low, high, hot in ((first, min(last, hot_steps), HOT * unit), (max(first, hot_steps), last, 0.0)):
            if low < high:
                span = (low * PROPOSALS_PER_STEP, high * PROPOSALS_PER_STEP)
                trades += kernels.search_swaps(problem, layout, state, near, *span, total, hot, COLD * unit, MARGIN)
    return Refined(layout[1].astype(np.int64), steps, trades, False)


def build_problem(graph, pi: np.ndarray, cost: CostConfig, pi_prev=None) -> tuple[tuple, tuple]:
    """The arrays of `kernels` (problem, layout) for a graph with at least one edge."""
    D = graph.shape[0]
    weight = graph.data.sum() / 2
    degree = np.asarray(graph.sum(axis=1)).ravel() / weight
    apart = np.arange(D)
    longest = float(distance_penalty((D - 1) // cost.g, cost))
    near_cost = distance_penalty(apart // cost.g, cost) / longest if longest > 0 else np.zeros(D)
    table = cost.alpha * near_cost + cost.beta * (apart % cost.v != 0)
    block = block_of_position(D, cost.k)
    pos = invert_permutation(pi)
    prev = pos if pi_prev is None else invert_permutation(pi_prev)
    stability = 0.0 if pi_prev is None else cost.gamma_s / D
    problem = (
        graph.indptr.astype(np.int64),
        graph.indices.astype(np.int32),
        graph.data / weight,
        degree,
        block.astype(np.int32),
        table,
        prev.astype(np.int32),
        np.array([cost.mu, cost.mu * cost.gamma / 4, stability, float(cost.h)]),
    )
    block_degree = np.bincount(block[pos], weights=degree, minlength=int(cost.k))
    return problem, (pos.astype(np.int32), pi.astype(np.int32), block_degree)


def warm_up() -> float:
    """Compile or load the kernels; returns the seconds it took (a cold start is not the solver's time)."""
    import scipy.sparse as sp

    started = time.perf_counter()
    path = sp.csr_array(np.diag(np.ones(7), 1) + np.diag(np.ones(7), -1))
    refine_layout(path, np.arange(8), CostConfig(g=2, k=2), steps=1, seed=0)
    return time.perf_counter() - started


def _tiles_pay(D: int, g: int, steps: int) -> bool:
    """Pricing all pairs of tiles looks at 4 g elements per pair, a step at 2 * 512."""
    pairs = (D // g) * (D // g - 1) // 2
    return pairs * 4 * g <= steps * 2 * PROPOSALS_PER_STEP


def _is_late(deadline: float | None) -> bool:
    return deadline is not None and time.perf_counter() > deadline
