"""Refinement of one layout on the true J: whole lines, then single elements from fields, then an exact descent."""

import time
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from icd_lib.graph.contract import check_w
from icd_lib.solver.clock import Clock
from icd_lib.solver.cost import CostConfig, score_positions
from icd_lib.solver.lines import Lines, line_length
from icd_lib.solver.orderings import order_backbone, order_louvain
from icd_lib.solver.problem import build_layout, build_problem, distance_price
from icd_lib.solver.windows import Annealer, Spent

# Proposals of whole lines per line, at least and at most in all.
LINE_PROPOSALS = 500
LEAST_LINE_PROPOSALS, MOST_LINE_PROPOSALS = 4_000, 200_000
# Partners each element tries in the exact descent.
TRIES = 4
ELEMENTS_PER_CHUNK = 2_000
# A trade must gain more than the rounding of its own price.
MARGIN = 1e-13


class Refined(NamedTuple):
    """A refined layout pi int64 (D,), and the proposals and trades of single elements it took."""

    pi: np.ndarray
    proposals: int
    trades: int


class Refiner:
    """Refines layouts of one graph that `check_w` returned and that has an edge; every step is a function of its seed.

    Each method returns a layout that may be worse than the given one (annealing): compare. When the clock runs out it
    returns what it has.
    """

    def __init__(self, graph, cost: CostConfig, clock: Clock, pi_prev=None):
        self.cost, self.clock = cost, clock
        self.problem = build_problem(graph, cost, pi_prev)
        self.annealer = Annealer(self.problem, cost)

    def move_lines(self, pi: np.ndarray, seed: int, weight_c=1.0) -> np.ndarray:
        """Anneal whole lines, then blocks of lines."""
        length = line_length(len(pi), self.cost.g)
        lines = Lines(self.problem, pi, self.cost, length, weight_c)
        proposals = min(max(LINE_PROPOSALS * lines.count, LEAST_LINE_PROPOSALS), MOST_LINE_PROPOSALS)
        lines.anneal(_state(seed), proposals, self.clock)
        return lines.layout()

    def anneal(self, pi: np.ndarray, seed: int, work: float, hot: float, weight_c=1.0, shift=False) -> Refined:
        """Anneal single elements for `work` proposals or the trades worth as many; weight_c multiplies alpha."""
        annealer = self.annealer if weight_c == 1 else Annealer(self.problem, self.cost, weight_c)
        layout = build_layout(self.problem, pi)
        spent: Spent = annealer.run(layout, _state(seed), work, hot, self.clock, shift)
        return Refined(layout.perm.astype(np.int64), *spent)

    def best_of_all(self) -> np.ndarray:
        """The best of all D! layouts, for D of a handful."""
        from icd_lib.solver import kernels

        D = len(self.problem.degree)
        weights = np.zeros((D, D))
        rows = np.repeat(np.arange(D), np.diff(self.problem.indptr))
        weights[rows, self.problem.indices] = self.problem.data
        return kernels.best_of_all(weights, self.problem, np.arange(D))

    def polish(self, pi: np.ndarray, seed: int, weight_c: float = 1.0) -> Refined:
        """Every element tries a few partners, priced exactly; with weight_c = 1 J never rises."""
        from icd_lib.solver import kernels

        layout, state, D = build_layout(self.problem, pi), _state(seed), len(pi)
        problem = self.problem
        if weight_c != 1:
            problem = problem._replace(table=problem.table + (weight_c - 1) * distance_price(D, self.cost))
        near = max(1, min(2 * int(self.cost.g), D - 1))
        trades = first = 0
        while first < D and not self.clock.is_late():
            last = min(first + ELEMENTS_PER_CHUNK, D)
            trades += kernels.descend_swaps(problem, layout, state, near, first, last, TRIES, MARGIN)
            first = last
        return Refined(layout.perm.astype(np.int64), first * TRIES, trades)


def _state(seed: int) -> np.ndarray:
    """A generator's state far from those of neighbouring seeds."""
    return np.random.SeedSequence(seed).generate_state(1, np.uint64)


_warm = False


def warm_up() -> float:
    """Compile or load the kernels, once; returns the seconds it took (a cold start is not the solver's time)."""
    global _warm
    if _warm:
        return 0.0
    started = time.perf_counter()
    path = sp.csr_array(np.diag(np.ones(9), 1) + np.diag(np.ones(9), -1))
    graph, cost, clock = check_w(path), CostConfig(g=2, k=2), Clock(float("inf"))
    score_positions(graph, np.arange(10), cost)
    refiner = Refiner(graph, cost, clock)
    moved = refiner.move_lines(np.arange(10), 0)
    refiner.polish(refiner.anneal(moved, 0, 1, 1.0).pi, 0)
    for ordering in (order_backbone, order_louvain):
        ordering(graph, cost, 0)
    _warm = True
    return time.perf_counter() - started
