"""Putting the weights of an access graph on a common scale, with the contract of `check_w` kept."""

import difflib

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError

NORMALIZATIONS = ("none", "row", "sym")
_LEAST, _MOST = 2.0**-1000, 2.0**1000  # of degrees whose reciprocals and products are float64s


def normalize_graph(graph: sp.csr_array, how: str) -> sp.csr_array:
    """A graph of the same edges for one that `check_w` returned; with k_i = sum_j W_ij:

    none: W_ij, in bytes. row: (W_ij / k_i + W_ij / k_j) / 2, the mean of the two row-stochastic weights of an edge (row
    normalization alone is not symmetric; this is the symmetric part of it). sym: W_ij / sqrt(k_i k_j), the normalized
    adjacency of spectral clustering. Row and sym have no unit. Raises `ConfigError` on another `how`.

    >>> normalize_graph(sp.csr_array([[0, 2.0, 0], [2.0, 0, 6.0], [0, 6.0, 0]]), "row").toarray()[0]
    array([0.   , 0.625, 0.   ])
    """
    check_normalization(how)
    if how == "none":
        return graph
    with np.errstate(over="ignore"):
        degree = np.asarray(graph.sum(axis=1)).ravel()
    degree[degree == 0] = 1
    if graph.nnz and not (_LEAST < degree.min() and degree.max() < _MOST):
        return _by_shares(graph, how)
    here = np.repeat(degree, np.diff(graph.indptr))
    there = degree[graph.indices]
    # Every factor is symmetric in its two ends, so the result is symmetric to the last bit.
    factor = (1 / here + 1 / there) / 2 if how == "row" else 1 / (np.sqrt(here) * np.sqrt(there))
    return sp.csr_array((graph.data * factor, graph.indices, graph.indptr), shape=graph.shape)


def _by_shares(graph: sp.csr_array, how: str) -> sp.csr_array:
    """Likewise where a degree or its reciprocal is no float64: from W_ij / k_i and W_ij / k_j, which are at most 1."""
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    heaviest = np.zeros(graph.shape[0])
    np.maximum.at(heaviest, rows, graph.data)
    relative = graph.data / heaviest[rows]
    total = np.bincount(rows, weights=relative, minlength=graph.shape[0])
    here = relative / total[rows]
    there = graph.data / heaviest[graph.indices] / total[graph.indices]
    data = (here + there) / 2 if how == "row" else np.sqrt(here) * np.sqrt(there)
    return sp.csr_array((data, graph.indices, graph.indptr), shape=graph.shape)


def check_normalization(how: str) -> str:
    """Return `how`, or raise `ConfigError` with the nearest name."""
    if how not in NORMALIZATIONS:
        near = difflib.get_close_matches(str(how), NORMALIZATIONS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"normalize is one of {NORMALIZATIONS}, got {how!r}{hint}")
    return how
