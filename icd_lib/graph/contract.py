"""What every access graph W promises, and the one function that checks it."""

import hashlib

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import SolverNotConverged


def check_w(W) -> sp.csr_array:
    """Return W as a canonical float64 csr_array of shape (D, D), D >= 1, or raise `SolverNotConverged`.

    The contract: square, finite, W_ij >= 0, W_ii = 0, W_ij = W_ji exactly. Canonical means sorted indices (int32 where
    they fit), duplicates summed and no stored zeros, so equal graphs have equal bytes. The error names the first
    offender in row order. The result is a copy; beyond it O(D) memory, O(nnz) time.

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
    graph = _canonical_copy(W)
    _refuse_faults(graph)
    _refuse_asymmetry(graph)
    return graph


def _canonical_copy(W) -> sp.csr_array:
    from icd_lib.graph import kernels  # numba loads slowly, and only graphs that are checked need it

    graph = sp.csr_array(W, dtype=np.float64, copy=True)
    if len(graph.data) <= np.iinfo(np.int32).max:
        graph.indices, graph.indptr = (a.astype(np.int32, copy=False) for a in (graph.indices, graph.indptr))
    row = kernels.find_broken_row(graph.indptr, graph.indices, graph.shape[0])
    if row >= 0:
        raise SolverNotConverged(
            f"row {row} of the access graph has column numbers or pointers outside 0..{graph.shape[0] - 1}"
        )
    if not kernels.is_canonical(graph.indptr, graph.indices, graph.data):
        # scipy may remember flags from before someone edited the arrays.
        graph.has_sorted_indices = graph.has_canonical_format = False
        graph.sum_duplicates()
        graph.eliminate_zeros()
    return graph


def _refuse_faults(graph: sp.csr_array) -> None:
    from icd_lib.graph import kernels

    what, at = kernels.find_fault(graph.indptr, graph.indices, graph.data)
    if what == kernels.FINE:
        return
    cure = {
        kernels.NOT_FINITE: "is not finite; drop the edge or fix the source",
        kernels.NEGATIVE: "is negative; weights are bytes, take the absolute value",
        kernels.DIAGONAL: "is on the diagonal, which must be zero; use W.setdiag(0)",
    }[what]
    row = int(np.searchsorted(graph.indptr, at, side="right")) - 1
    raise SolverNotConverged(f"W[{row}, {int(graph.indices[at])}] = {graph.data[at]} {cure}")


def _refuse_asymmetry(graph: sp.csr_array) -> None:
    from icd_lib.graph import kernels

    parts = graph.indptr, graph.indices, graph.data
    if kernels.is_symmetric(*parts):
        return
    i, j = kernels.find_asymmetry(*parts)
    raise SolverNotConverged(f"W[{i}, {j}] = {graph[i, j]} but W[{j}, {i}] = {graph[j, i]}; use (W + W.T) / 2")


def is_same_graph(first: sp.csr_array, second: sp.csr_array) -> bool:
    """Whether two graphs are equal byte for byte: values, columns and row ends."""
    return all(np.array_equal(getattr(first, part), getattr(second, part)) for part in ("data", "indices", "indptr"))


def graph_sha256(graph: sp.csr_array) -> str:
    """The same for graphs that `is_same_graph`, and for no others."""
    digest = hashlib.sha256()
    for part, dtype in (("data", "<f8"), ("indices", "<i8"), ("indptr", "<i8")):
        digest.update(np.ascontiguousarray(getattr(graph, part), dtype).tobytes() + b"|")
    return digest.hexdigest()
