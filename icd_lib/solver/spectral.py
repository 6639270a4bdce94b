"""Fiedler vectors: dense for small graphs, Lanczos for middling ones, a multilevel scheme for large ones."""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import ArpackError, eigsh
from threadpoolctl import threadpool_limits

from icd_lib.errors import SolverNotConverged

DENSE_SIZE = 64
LANCZOS_SIZE = 4096
# Neighbouring elements differ by much less than this, but an order does not need their digits.
TOLERANCE = 1e-3
# Below this a contraction no longer pays (a star hardly shrinks).
LEAST_SHRINK = 0.9
SMOOTHINGS = 8
RESTARTS = 4  # of Lanczos on the whole of a large graph


def fiedler_vector(graph, seed: int) -> np.ndarray:
    """Second eigenvector of D^-1/2 W D^-1/2, times D^-1/2, of a connected csr graph with n > 2; its sign is fixed.

    Above `LANCZOS_SIZE` elements, where a few restarts of Lanczos do not converge: heavy-edge matchings contract the
    graph (Karypis & Kumar 1998), Lanczos solves the smallest one, and each finer level starts from the coarser one's
    values, smoothed by lazy random-walk steps.
    """
    # One BLAS thread: with more the last bits, and so the order of near ties, would depend on how many there are.
    with threadpool_limits(1, user_api="blas"):
        if graph.shape[0] <= LANCZOS_SIZE:
            vector = _solve(graph, seed)
        else:
            try:
                vector = _solve(graph, seed, RESTARTS)
            except SolverNotConverged:  # a long, thin graph, whose eigenvalues crowd
                vector = _multilevel(graph, seed)
    return vector * np.sign(vector[np.argmax(np.abs(vector))])


def _multilevel(graph, seed: int) -> np.ndarray:
    from icd_lib.solver import graph_kernels

    levels, labels = [graph], []
    while levels[-1].shape[0] > LANCZOS_SIZE:
        fine = levels[-1]
        label = graph_kernels.match_heaviest(fine.indptr, fine.indices, fine.data)
        count = int(label.max()) + 1
        if count > LEAST_SHRINK * fine.shape[0]:
            break
        parts = graph_kernels.contract(fine.indptr, fine.indices, fine.data, label, count)
        levels.append(sp.csr_array((parts[2], parts[1], parts[0]), shape=(count, count)))
        labels.append(label)
    vector = _solve(levels[-1], seed)
    for fine, label in zip(levels[-2::-1], labels[::-1], strict=True):
        vector = _smooth(fine, vector[label])
    return vector


def _smooth(graph, vector: np.ndarray) -> np.ndarray:
    """Steps of the lazy walk (I + D^-1 W) / 2, orthogonal to the constant: damps what a coarse level left rough."""
    degree = np.asarray(graph.sum(axis=1)).ravel()
    inverse = 1 / np.where(degree > 0, degree, 1)
    for _ in range(SMOOTHINGS):
        vector = (vector + inverse * (graph @ vector)) / 2
        vector -= (degree * vector).sum() / degree.sum()
        vector /= np.abs(vector).max() or 1.0
    return vector


def _solve(graph, seed: int, restarts: int | None = None) -> np.ndarray:
    degree = np.asarray(graph.sum(axis=1)).ravel()
    root = 1 / np.sqrt(np.where(degree > 0, degree, 1))
    rows = np.repeat(root, np.diff(graph.indptr))
    normalised = sp.csr_array((graph.data * rows * root[graph.indices], graph.indices, graph.indptr), graph.shape)
    n = graph.shape[0]
    if n <= DENSE_SIZE:
        return np.linalg.eigh(normalised.toarray())[1][:, -2] * root
    start = np.random.default_rng(seed).standard_normal(n)
    try:
        values, vectors = eigsh(normalised, k=2, which="LA", v0=start, tol=TOLERANCE, maxiter=restarts or 50 * n)
    except ArpackError as error:  # includes ArpackNoConvergence
        raise SolverNotConverged(f"the Fiedler vector of {n} elements did not converge: {error}") from error
    return vectors[:, np.argmin(values)] * root
