"""Keeping the heaviest edges of an access graph, deterministically."""

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError


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


def build_symmetric(rows: np.ndarray, cols: np.ndarray, weights: np.ndarray, size: int) -> sp.csr_array:
    """Symmetric csr_array (size, size) from edges i < j, each given once or more (repeats add up)."""
    both_rows, both_cols = np.concatenate([rows, cols]), np.concatenate([cols, rows])
    graph = sp.coo_array((np.concatenate([weights, weights]), (both_rows, both_cols)), shape=(size, size)).tocsr()
    graph.sum_duplicates()
    graph.eliminate_zeros()
    return graph


def check_nnz_cap(nnz_cap: int) -> int:
    """Return the number of undirected edges `nnz_cap` stored entries can hold, or raise `ConfigError`."""
    if not isinstance(nnz_cap, int | np.integer) or isinstance(nnz_cap, bool) or nnz_cap < 2:
        raise ConfigError(f"nnz_cap is an integer >= 2 (each edge is stored twice), got {nnz_cap!r}")
    return int(nnz_cap) // 2
