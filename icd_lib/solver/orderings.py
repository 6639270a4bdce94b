"""Starting layouts from graph structure, each a function (graph, cost, seed) -> pi int64 (D,).

All take a graph that `check_w` returned and put elements without edges last, in their old order.
"""

import random
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.sparse.linalg import ArpackError, eigsh
from threadpoolctl import threadpool_limits

from icd_lib.errors import ResourceError, SolverNotConverged
from icd_lib.solver.cost import CostConfig

DENSE_EIGEN_SIZE = 64


def order_identity(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """The order as it is."""
    return np.arange(graph.shape[0], dtype=np.int64)


def order_rcm(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Reverse Cuthill-McKee (1969): small bandwidth; ignores weights."""
    return _isolated_last(graph, reverse_cuthill_mckee(sp.csr_matrix(graph), symmetric_mode=True))


def order_spectral(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Fiedler order: second eigenvector of the normalised Laplacian, each component by itself, the heaviest first.

    Raises `SolverNotConverged` when the eigensolver does not converge.
    """
    count, label = connected_components(graph, directed=False)
    weight = np.bincount(label, weights=np.asarray(graph.sum(axis=1)).ravel(), minlength=count)
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    parts = []
    for component in np.argsort(-weight, kind="stable"):
        ids = members[component]
        if len(ids) > 2:
            ids = ids[np.argsort(_fiedler(graph[ids][:, ids], seed), kind="stable")]
        parts.append(ids)
    return _isolated_last(graph, np.concatenate(parts))


def order_communities(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Leiden communities (Traag et al. 2019, resolution cost.gamma) laid out by the Fiedler order of their quotient.

    Inside a community elements lie by where their outside neighbours are (weighted mean rank of the communities).
    Raises `ResourceError` without igraph.
    """
    label = _leiden(graph, cost.gamma, seed)
    D, count = graph.shape[0], int(label.max()) + 1
    member = sp.csr_array((np.ones(D), (np.arange(D), label)), shape=(D, count))
    quotient = sp.csr_array(member.T @ graph @ member)
    quotient.setdiag(0)
    quotient.eliminate_zeros()
    rank = np.empty(count)
    rank[order_spectral(quotient, cost, seed)] = np.arange(count)
    to_community = sp.csr_array(graph @ member)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    pull = (to_community @ rank) / np.where(degree > 0, degree, 1)
    return _isolated_last(graph, np.lexsort((np.arange(D), pull, rank[label])))


def order_bisection(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Recursive bisection into tiles by METIS (Karypis & Kumar 1998); raises `ResourceError` without pymetis."""
    try:
        import pymetis
    except ImportError as error:
        raise ResourceError("recursive bisection needs METIS; pip install pymetis") from error
    parts = -(-graph.shape[0] // int(cost.g))
    if parts < 2 or graph.nnz == 0:
        return _isolated_last(graph, np.arange(graph.shape[0]))
    # METIS takes whole weights; 1000 levels keep the order of the edges and cannot overflow its 32-bit sums.
    levels = np.maximum(1, np.rint(graph.data * (1000 / graph.data.max()))).astype(np.int64)
    _, label = pymetis.part_graph(
        parts,
        adjacency=pymetis.CSRAdjacency(graph.indptr, graph.indices),
        eweights=levels,
        recursive=True,
        options=pymetis.Options(seed=seed % 2**31),
    )
    return _isolated_last(graph, np.argsort(np.asarray(label), kind="stable"))


ORDERINGS: dict[str, Callable[..., np.ndarray]] = {
    "identity": order_identity,
    "rcm": order_rcm,
    "spectral": order_spectral,
    "communities": order_communities,
    "bisection": order_bisection,
}


def _isolated_last(graph, order: np.ndarray) -> np.ndarray:
    order = np.asarray(order, dtype=np.int64)
    has_edges = np.diff(graph.indptr)[order] > 0
    return np.concatenate([order[has_edges], np.sort(order[~has_edges])])


def _fiedler(graph, seed: int) -> np.ndarray:
    """Second eigenvector of D^-1/2 W D^-1/2, times D^-1/2, of a connected graph with n > 2; its sign is fixed."""
    root = 1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel())
    normalised = sp.csr_array(graph * root[:, None] * root[None, :])
    n = graph.shape[0]
    # One BLAS thread: with more the last bits, and so the order of near ties, would depend on how many there are.
    with threadpool_limits(1, user_api="blas"):
        if n <= DENSE_EIGEN_SIZE:
            vector = np.linalg.eigh(normalised.toarray())[1][:, -2]
        else:
            start = np.random.default_rng(seed).standard_normal(n)
            try:
                values, vectors = eigsh(normalised, k=2, which="LA", v0=start, tol=1e-5, maxiter=50 * n)
            except ArpackError as error:  # includes ArpackNoConvergence
                raise SolverNotConverged(f"the Fiedler vector of {n} elements did not converge: {error}") from error
            vector = vectors[:, np.argmin(values)]
    vector = vector * root
    return vector * np.sign(vector[np.argmax(np.abs(vector))])


def _leiden(graph, resolution: float, seed: int) -> np.ndarray:
    try:
        import igraph
    except ImportError as error:
        raise ResourceError("community detection needs igraph; pip install igraph") from error
    upper = sp.triu(graph, 1).tocoo()
    rows, cols = upper.coords
    network = igraph.Graph(n=graph.shape[0], edges=np.column_stack([rows, cols]))
    weights = upper.data / upper.data.max() if upper.nnz else upper.data
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = network.community_leiden("modularity", weights=weights.tolist(), resolution=resolution, n_iterations=4)
    finally:
        igraph.set_random_number_generator(random)  # igraph's own default
    return np.asarray(found.membership, dtype=np.int64)
