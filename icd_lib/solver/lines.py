"""Macro-moves: the layout is cut into equal lines, which are annealed as wholes on their quotient graph."""

import numpy as np

from icd_lib.axes.permutation import invert_permutation
from icd_lib.solver.cost import CostConfig, block_of_position
from icd_lib.solver.problem import Problem, distance_price

MOST_LINES = 1536
# Temperatures in units of the standard deviation of the change that a random trade makes.
HOT, COLD = 0.3, 0.003
SAMPLES = 400
RUN_SHARE = 0.02  # of the proposals move blocks of lines; fewer with more than RUNS_PAY lines, as blocks get longer
RUNS_PAY = 100
WORK_PER_CHUNK = 20_000_000
# X and P are rounded to whole numbers: sums of X P then stay below 2^52, where float64 still counts in ones.
WEIGHT_LEVELS, PRICE_LEVELS = 2.0**31, 2.0**20


def line_length(D: int, g: int) -> int:
    """Elements per line: the tile, or as many tiles as keep the lines at `MOST_LINES`; fewer where tiles are few.

    >>> line_length(1536, 16), line_length(20_000, 16), line_length(256, 64)
    (16, 16, 8)
    """
    tiles = -(-D // MOST_LINES // g)
    return max(1, min(int(g) * max(tiles, 1), D // 32))


def pair_sums(price: np.ndarray) -> np.ndarray:
    """G (2 D + 1,) with G[n + D] so that sums of `price` over two runs of positions are differences of four values.

    price (D,) is that of a distance, price[0] = 0. G'' = price(|n|), so that
    sum_{a <= p < b} sum_{c <= q < d} price(|p - q|) = G(b - c) - G(a - c) - G(b - d) + G(a - d).
    """
    half = np.concatenate([[0.0], np.cumsum(np.cumsum(price))])  # G(n + 1) - 2 G(n) + G(n - 1) = price(n), G even
    return np.concatenate([half[:0:-1], half])


def mean_price(price: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Mean price between every run of `rows` and of `cols`, (len(rows), len(cols)); each (first, end) per run."""
    G, D = pair_sums(price), len(price)
    a, b = rows[:, :1], rows[:, 1:]
    c, d = cols[:, 0], cols[:, 1]
    total = G[b - c + D] - G[a - c + D] - G[b - d + D] + G[a - d + D]
    return total / ((b - a) * (d - c))


class Lines:
    """The quotient graph of a layout pi cut into lines of `length`; the last D mod length elements stay."""

    def __init__(self, problem: Problem, pi: np.ndarray, cost: CostConfig, length: int, weight_c: float = 1.0):
        from icd_lib.solver import line_kernels

        self.kernels, self.pi, self.length = line_kernels, pi, length
        D = len(pi)
        self.count = D // length
        line = np.minimum(invert_permutation(pi) // length, self.count)
        X = line_kernels.sum_lines(problem.indptr, problem.indices, problem.data, line, self.count + 1)
        first = np.arange(self.count) * length
        runs = np.stack([first, first + length], axis=1)
        block = block_of_position(D, cost.k)
        share = np.stack([(block == b) for b in range(int(block[-1]) + 1)], axis=1)[: self.count * length]
        self.share = share.reshape(self.count, length, -1).mean(axis=1)
        P = mean_price(weight_c * distance_price(D, cost), runs, runs) - cost.mu * (self.share @ self.share.T)
        inner = X[:-1, :-1]
        up, high = WEIGHT_LEVELS / max(inner.sum(), np.finfo(float).tiny), PRICE_LEVELS / max(np.abs(P).max(), 1e-300)
        self.unit = up * high
        self.X, self.P = np.rint(inner * up), np.rint(P * high)
        self.order = np.arange(self.count)
        self.degree = np.bincount(line, weights=problem.degree[: len(line)], minlength=self.count + 1)[: self.count]
        tail = np.bincount(block[self.count * length :], problem.degree[pi[self.count * length :]], share.shape[1])
        self.held = self.degree @ self.share + tail
        self.spread = problem.spread * self.unit
        stab = (problem.prev, problem.h, problem.stab * self.unit, length, self.count if problem.stab > 0 else 0)
        self.S = line_kernels.price_stability(pi, *stab)

    def anneal(self, state: np.ndarray, proposals: int, clock) -> None:
        """Trades of two lines and moves of blocks of them, from HOT to COLD; stops early when the clock says so."""
        scene = (self.X, self.P, self.share, self.S, self.order, self.degree, self.held, self.spread, state)
        heat = float(np.std(self.kernels.sample_trades(*scene, SAMPLES))) if self.count > 1 else 0.0
        if not heat > 0:
            return
        run_share = RUN_SHARE * min(1.0, RUNS_PAY / self.count)
        chunk = max(WORK_PER_CHUNK // self.count, 1)
        for first in range(0, proposals, chunk):
            if clock.is_late():
                return
            span = (first, min(first + chunk, proposals), proposals)
            self.kernels.anneal_lines(*scene, *span, HOT * heat, COLD * heat, run_share)

    def layout(self) -> np.ndarray:
        """The layout pi with its lines in their present order."""
        at = (self.order[:, None] * self.length + np.arange(self.length)).ravel()
        return np.concatenate([self.pi[at], self.pi[self.count * self.length :]])
