"""Annealing of single elements, window by window: cheap proposals from fields (see `icd_lib.solver.field_kernels`)."""

from typing import NamedTuple

import numpy as np

from icd_lib.solver.cost import CostConfig
from icd_lib.solver.lines import mean_price
from icd_lib.solver.problem import Layout, Problem, distance_price

MOST_POSITIONS = 3072  # of a window
COLUMNS = 100
EXACT_SIZE = 256  # up to here every position is a column, and the price is exact but for float32
MOST_RESIDUES = 256  # with more, alignment is left to the exact descent
# Temperatures in units of what an element's edges fluctuate by: sqrt(sum_j w_ij^2) times the spread of the price.
COLD = 0.036
WORK_PER_CHUNK = 100_000
DESCENT_SHARE = 0.1
# A trade in units of proposals, per neighbour and column, and per neighbour.
TOLL_PER_COLUMN, TOLL = 0.0024, 0.06


class Spent(NamedTuple):
    """What a search did: proposals and trades."""

    proposals: int
    trades: int


def window_bounds(D: int, shift: bool = False) -> list[tuple[int, int]]:
    """Windows [first, end) that cover D positions, sizes equal up to one; shifted: by half a window.

    >>> window_bounds(10), window_bounds(6145)[1], window_bounds(6145, shift=True)[0]
    ([(0, 10)], (2048, 4096), (0, 1024))
    """
    count = -(-D // MOST_POSITIONS)
    edges = np.arange(count + 1) * D // count
    if shift and count > 1:
        edges = np.concatenate([[0], (edges[:-1] + edges[1:]) // 2, [D]])
    return [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


class Annealer:
    """Anneals the layouts of one problem; `weight_c` multiplies C's weight alpha in the search."""

    def __init__(self, problem: Problem, cost: CostConfig, weight_c: float = 1.0):
        self.problem, self.cost = problem, cost
        D = len(problem.degree)
        self.price = weight_c * distance_price(D, cost)
        self.beta = float(cost.beta) if 1 < cost.v <= MOST_RESIDUES else 0.0
        self.residues = int(cost.v) if self.beta > 0 else 1
        self.live = np.diff(problem.indptr) > 0
        self.unit = self._fluctuation()

    def _fluctuation(self) -> float:
        """Mean over the elements of sqrt(sum_j w_ij^2), times the spread of the price over pairs of positions."""
        from icd_lib.solver import kernels

        p = self.problem
        D = len(p.degree)
        squares = kernels.sum_rows(p.indptr, p.data * p.data)
        times = 2.0 * (D - np.arange(D))
        times[0] = D
        mean = (self.price * times).sum() / D**2
        variance = ((self.price - mean) ** 2 * times).sum() / D**2
        together = np.square(np.bincount(p.block) / D).sum()
        variance += p.mu**2 * together * (1 - together)
        return float(np.sqrt(squares[self.live]).mean() * np.sqrt(variance))

    def run(self, layout: Layout, state: np.ndarray, work: float, hot: float, clock, shift: bool = False) -> Spent:
        """Anneal every window of `layout` in place with its share of `work` units, from `hot` units of temperature."""
        D = len(layout.pos)
        proposals = trades = 0
        for first, end in window_bounds(D, shift):
            spent = self._run_window(layout, first, end, state, work * (end - first) / D, hot * self.unit, clock)
            proposals, trades = proposals + spent.proposals, trades + spent.trades
            if clock.is_late():
                break
        return Spent(proposals, trades)

    def _run_window(self, layout, first, end, state, work, hot, clock) -> Spent:
        from icd_lib.solver import field_kernels

        problem, n, D = self.problem, end - first, len(layout.pos)
        ids = np.sort(layout.perm[first:end])
        live = np.flatnonzero(self.live[ids]).astype(np.int32)
        if n < 2 or not len(live):
            return Spent(0, 0)
        source, column, price, block = self._columns(first, end)
        T = price.shape[1]
        edges = int(np.diff(problem.indptr)[ids].sum())
        fields = np.empty((n, T), np.float32), np.empty((n, self.residues), np.float32)
        window = np.empty(n + 1, np.int64), np.empty(edges, np.int32), np.empty(edges, np.float32)
        scratch = np.empty(D, np.int32)
        field_kernels.fill_fields(problem, layout.pos, ids, first, source, price, *fields, scratch, window)
        place = layout.pos[ids] - np.int32(first), np.empty(n, np.int32), layout.block_degree
        place[1][place[0]] = np.arange(n, dtype=np.int32)
        inside = price[source[first:end][np.flatnonzero(np.diff(column, prepend=-1))]]
        scalars = self.beta, problem.spread, problem.stab, problem.h
        previous = problem.prev[ids] - np.int32(first)
        residue = (np.arange(first, end) % self.residues).astype(np.int32)
        toll = TOLL_PER_COLUMN * T + TOLL
        scene = (inside, column, residue, block, problem.degree[ids], live, previous, scalars, toll)
        near = max(1, min(2 * int(self.cost.g), n // 8))
        proposals = trades = 0
        heated = work * (1 - DESCENT_SHARE) if hot > 0 else 0.0
        for until, total, heat in ((heated, heated, hot), (work, work, 0.0)):
            done = 0.0 if heat else heated
            while done < until and not clock.is_late():
                chunk = min(done + WORK_PER_CHUNK, until)
                args = (near, done, chunk, total, heat, COLD * self.unit)
                done, more, traded = field_kernels.anneal_fields(scene, window, fields, place, state, *args)
                proposals, trades = proposals + more, trades + traded
        layout.pos[ids] = place[0] + np.int32(first)
        layout.perm[first:end] = ids[place[1]]
        return Spent(proposals, trades)

    def _columns(self, first: int, end: int):
        """source (D,) rows of a position, column (n,) of a window's position, price (S, T), block (T,)."""
        D, block = len(self.price), self.problem.block
        n = end - first
        width = 1 if D <= EXACT_SIZE else max(1, n // COLUMNS)
        far = max(width, D // COLUMNS)
        margin = 4 * max(width, int(self.cost.g))
        cut = np.zeros(D, dtype=bool)
        cut[::far] = True
        cut[max(first - margin, 0) : end + margin : width] = True
        cut[max(first - margin, 0)] = cut[min(end + margin, D - 1)] = cut[first] = True
        inside = np.zeros(n, dtype=bool)
        inside[::width] = True
        cut[first:end] = inside
        if end < D:
            cut[end] = True
        cut[1:] |= block[1:] != block[:-1]
        source = np.cumsum(cut) - 1
        starts = np.flatnonzero(cut)
        runs = np.stack([starts, np.append(starts[1:], D)], axis=1)
        mine = np.arange(source[first], source[end - 1] + 1)
        price = mean_price(self.price, runs, runs[mine])
        blocks = block[starts]
        price -= self.problem.mu * np.equal.outer(blocks, blocks[mine])
        column = (source[first:end] - source[first]).astype(np.int32)
        return source.astype(np.int32), column, price.astype(np.float32), blocks[mine]
