"""What every access graph W promises, and the one function that checks it."""

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import SolverNotConverged


def check_w(W) -> sp.csr_array:
    """Return W as a canonical float64 csr_array of shape (D, D), D >= 1, or raise `SolverNotConverged`.

    The contract: square, finite, W_ij >= 0, W_ii = 0, W_ij = W_ji exactly. Canonical means sorted indices, duplicates
    summed and no stored zeros, so equal graphs have equal bytes. The error names the first offender in row order.

    >>> check_w(sp.csr_array([[0, 2], [2, 0]])).data
    array([2., 2.])
    """
    if not sp.issparse(W):
        raise SolverNotConverged(
            f"an access graph is a scipy.sparse matrix, got {type(W).__name__}; wrap it in scipy.sparse.csr_array"
        )
    if W.ndim != 2 or W.shape[0] != W.shape[1] or W.shape[0] == 0:
        raise SolverNotConverged(f"an access graph is square with at least one element, got shape {W.shape}")
    if not (np.issubdtype(W.dtype, np.floating) or np.issubdtype(W.dtype, np.integer)):
        raise SolverNotConverged(f"access graph weights are real numbers, got dtype {W.dtype}; cast them to float64")
    graph = sp.csr_array(W, dtype=np.float64, copy=True)
    graph.sum_duplicates()
    graph.eliminate_zeros()
    _refuse_first(graph, ~np.isfinite(graph.data), "is not finite; drop the edge or fix the source")
    _refuse_first(graph, graph.data < 0, "is negative; weights are bytes, take the absolute value")
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    _refuse_first(graph, rows == graph.indices, "is on the diagonal, which must be zero; use W.setdiag(0)")
    _check_symmetric(graph)
    return graph


def _refuse_first(graph: sp.csr_array, offends: np.ndarray, what: str) -> None:
    if not offends.any():
        return
    at = int(np.argmax(offends))
    row = int(np.searchsorted(graph.indptr, at, side="right")) - 1
    raise SolverNotConverged(f"W[{row}, {int(graph.indices[at])}] = {graph.data[at]} {what}")


def _check_symmetric(graph: sp.csr_array) -> None:
    mirrored = graph.T.tocsr()
    mirrored.sort_indices()
    same_pattern = np.array_equal(graph.indptr, mirrored.indptr) and np.array_equal(graph.indices, mirrored.indices)
    if same_pattern and np.array_equal(graph.data, mirrored.data):
        return
    difference = (graph - mirrored).tocoo()
    rows, cols = difference.coords
    bad = np.flatnonzero(difference.data)
    first = bad[np.lexsort((cols[bad], rows[bad]))[0]]
    i, j = int(rows[first]), int(cols[first])
    raise SolverNotConverged(f"W[{i}, {j}] = {graph[i, j]} but W[{j}, {i}] = {graph[j, i]}; use (W + W.T) / 2")
