"""Keeping the heaviest edges of an access graph, deterministically, and saying what was dropped."""

import math

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError, SolverNotConverged


def find_heaviest(weights: np.ndarray, count: int) -> np.ndarray:
    """Indices (ascending) of the `count` largest weights (1-D, finite); of equal weights the earlier index is kept.

    >>> find_heaviest(np.array([1.0, 3.0, 2.0, 2.0]), 2)
    array([1, 2])
    """
    if count >= len(weights):
        return np.arange(len(weights))
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(weights, len(weights) - count)[len(weights) - count]
    keep = weights > threshold
    ties = np.flatnonzero(weights == threshold)
    keep[ties[: count - np.count_nonzero(keep)]] = True
    return np.flatnonzero(keep)


class HeaviestEdges:
    """The `count` heaviest of edges that arrive in blocks of a matrix, in O(count + block) memory.

    The result is that of `find_heaviest` over all of them in order of arrival; `edges` and `weight` are of what was
    offered.
    """

    def __init__(self, count: int):
        self.count = count
        self.edges, self.weight = 0, 0.0
        self._kept: list[np.ndarray] = [np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)]
        self._threshold = 0.0

    def offer_block(self, block: np.ndarray, first: int) -> None:
        """Add block[i, j] >= 0, the weight between elements first + i and first + j, row by row; 0 is no edge."""
        self.edges += int(np.count_nonzero(block))
        self.weight += float(block.sum(dtype=np.float64))
        rows, cols = np.nonzero(block > self._threshold)
        if not len(rows):
            return
        weights = block[rows, cols].astype(np.float64)
        new: list[np.ndarray] = [(rows + first).astype(np.int32), (cols + first).astype(np.int32), weights]
        self._kept = [np.concatenate(pair) for pair in zip(self._kept, new, strict=True)]
        if len(self._kept[2]) > 2 * self.count:
            self._prune()

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows, cols, weights) of the heaviest, in order of arrival."""
        self._prune()
        rows, cols, weights = self._kept
        return rows, cols, weights

    def _prune(self) -> None:
        keep = find_heaviest(self._kept[2], self.count)
        self._kept = [column[keep] for column in self._kept]
        if len(keep) == self.count:
            self._threshold = float(self._kept[2].min())


def build_symmetric(rows: np.ndarray, cols: np.ndarray, weights: np.ndarray, size: int) -> sp.csr_array:
    """Symmetric csr_array (size, size) from edges i < j, each given once or more (repeats add up). O(edges) memory."""
    from icd_lib.graph import kernels  # numba loads slowly, and only graphs that are built need it

    stored = np.flatnonzero(weights)
    if len(stored) < len(weights):
        rows, cols, weights = rows[stored], cols[stored], weights[stored]
    key = rows.astype(np.int64) * size + cols
    if (key[1:] <= key[:-1]).any():
        order = np.argsort(key, kind="stable")
        key, weights = key[order], weights[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        if len(first) < len(key):
            key, weights = key[first], np.add.reduceat(weights, first)
    rows, cols = (key // size).astype(np.int32), (key % size).astype(np.int32)
    parts = kernels.mirror_edges(rows, cols, np.ascontiguousarray(weights, dtype=np.float64), size)
    indptr, indices, data = parts
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    return sp.csr_array((data, indices, indptr), shape=(size, size))


def cap_edges(graph: sp.csr_array, nnz_cap: int) -> tuple[sp.csr_array, dict]:
    """(graph with its `nnz_cap` heaviest stored entries, what was dropped), for a graph that `check_w` returned.

    Edges are dropped whole, lightest first, of equal ones the later in row order first. The dict has `edges` and
    `bytes` kept, `dropped_edges` and `dropped_bytes`.
    """
    edge_cap = check_nnz_cap(nnz_cap)
    if graph.nnz // 2 <= edge_cap:
        return graph, dropped_of(graph, graph.nnz // 2, total_bytes(graph.data) / 2)
    rows = np.repeat(np.arange(graph.shape[0], dtype=np.int32), np.diff(graph.indptr))
    upper = rows < graph.indices
    rows, cols, weights = rows[upper], graph.indices[upper], graph.data[upper]
    keep = find_heaviest(weights, edge_cap)
    capped = build_symmetric(rows[keep], cols[keep], weights[keep], graph.shape[0])
    return capped, dropped_of(capped, len(weights), total_bytes(weights))


def dropped_of(graph: sp.csr_array, edges: int, total: float) -> dict:
    """What `graph` keeps of `edges` edges that weigh `total` bytes (each edge once), and what it leaves out.

    Raises `SolverNotConverged` where the bytes are more than float64 holds.
    """
    kept = total_bytes(graph.data) / 2
    if not math.isfinite(total):
        raise SolverNotConverged(f"the weights of the access graph sum to {total} bytes; divide them all by a constant")
    kept_edges = graph.nnz // 2
    return {
        "edges": kept_edges,
        "bytes": kept,
        "dropped_edges": edges - kept_edges,
        "dropped_bytes": max(total - kept, 0.0) if edges > kept_edges else 0.0,
    }


def total_bytes(weights: np.ndarray) -> float:
    """Sum of weights >= 0; infinity where it is more than float64 holds."""
    with np.errstate(over="ignore"):
        return float(weights.sum())


def check_nnz_cap(nnz_cap: int) -> int:
    """Return the number of undirected edges `nnz_cap` stored entries can hold, or raise `ConfigError`."""
    if not isinstance(nnz_cap, int | np.integer) or isinstance(nnz_cap, bool) or nnz_cap < 2:
        raise ConfigError(f"nnz_cap is an integer >= 2 (each edge is stored twice), got {nnz_cap!r}")
    return int(nnz_cap) // 2
