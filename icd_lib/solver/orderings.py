"""Starting layouts from graph structure, each a function (graph, cost, seed) -> pi int64 (D,).

All take a graph that `check_w` returned and put elements without edges last, in their old order.
"""

import random
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

from icd_lib.optional import load_optional
from icd_lib.solver.cost import CostConfig
from icd_lib.solver.metis import bisected
from icd_lib.solver.spectral import fiedler_vector

# METIS stops at this many parts; what lies inside one is the refinement's business.
MOST_PARTS = 2048
# Neighbours per element that witness a shared neighbourhood: enough to tell two elements of one group from others.
WITNESSES = 24
SHARE_BINS = 64
LOUVAIN_PASSES = 20


def order_identity(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """The order as it is."""
    return np.arange(graph.shape[0], dtype=np.int64)


def order_rcm(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Reverse Cuthill-McKee (1969): small bandwidth; ignores weights."""
    return _isolated_last(graph, reverse_cuthill_mckee(sp.csr_matrix(graph), symmetric_mode=True))


def order_backbone(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Reverse Cuthill-McKee on the backbone: only edges whose ends share many neighbours.

    Noise joins strangers, structure joins elements with common company: dropping the edges below Otsu's threshold
    (1979) of the shares leaves bands and blocks that RCM unrolls, where a few long edges would have misled it.
    """
    from icd_lib.solver import graph_kernels

    D = graph.shape[0]
    witness = np.arange(D) % max(1, graph.nnz // (WITNESSES * D)) == 0
    share = graph_kernels.shared_neighbours(graph.indptr, graph.indices, witness)
    threshold = _otsu(graph_kernels.count_shares(share, SHARE_BINS))
    kept = graph_kernels.keep_edges(graph.indptr, graph.indices, share, np.float32(threshold))
    backbone = sp.csr_matrix((np.ones(len(kept[1]), np.int8), kept[1], kept[0]), shape=(D, D))
    return _isolated_last(graph, reverse_cuthill_mckee(backbone, symmetric_mode=True))


def order_spectral(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Fiedler order, each component by itself, the heaviest first.

    Raises `SolverNotConverged` when the eigensolver does not converge.
    """
    count, label = connected_components(graph, directed=False)
    if count == 1 and graph.shape[0] > 2:
        return np.argsort(fiedler_vector(graph, seed), kind="stable")
    weight = np.bincount(label, weights=np.asarray(graph.sum(axis=1)).ravel(), minlength=count)
    members = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    parts = []
    for component in np.argsort(-weight, kind="stable"):
        ids = members[component]
        if len(ids) > 2:
            ids = ids[np.argsort(fiedler_vector(graph[ids][:, ids], seed), kind="stable")]
        parts.append(ids)
    return _isolated_last(graph, np.concatenate(parts))


def order_louvain(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Louvain communities (Blondel et al. 2008, resolution 1) laid out by the Fiedler order of their quotient."""
    return _lay_out(graph, louvain_communities(graph, 1.0), cost, seed)


def order_fine_louvain(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Likewise at resolution cost.gamma, that of Q."""
    return _lay_out(graph, louvain_communities(graph, float(cost.gamma)), cost, seed)


def order_leiden(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Leiden communities (Traag et al. 2019, resolution cost.gamma), laid out likewise; raises `ResourceError`."""
    return _lay_out(graph, leiden_communities(graph, float(cost.gamma), seed), cost, seed)


def order_bisection(graph, cost: CostConfig, seed: int) -> np.ndarray:
    """Recursive bisection into pairs of tiles by METIS (Karypis & Kumar 1998); `ResourceError` without pymetis."""
    load_optional("pymetis")
    parts = min(-(-graph.shape[0] // (2 * int(cost.g))), MOST_PARTS)
    if parts < 2 or graph.nnz == 0:
        return _isolated_last(graph, np.arange(graph.shape[0]))
    # METIS takes whole weights; 1000 levels keep the order of the edges and cannot overflow its 32-bit sums.
    levels = np.maximum(1, np.rint(graph.data * (1000 / graph.data.max()))).astype(np.int64)
    label = bisected(graph.indptr, graph.indices, levels, parts, seed % 2**31)
    return _isolated_last(graph, np.argsort(label, kind="stable"))


ORDERINGS: dict[str, Callable[..., np.ndarray]] = {
    "identity": order_identity,
    "rcm": order_rcm,
    "backbone": order_backbone,
    "spectral": order_spectral,
    "louvain": order_louvain,
    "fine_louvain": order_fine_louvain,
    "bisection": order_bisection,
    "leiden": order_leiden,
}


def _isolated_last(graph, order: np.ndarray) -> np.ndarray:
    order = np.asarray(order, dtype=np.int64)
    has_edges = np.diff(graph.indptr)[order] > 0
    return np.concatenate([order[has_edges], np.sort(order[~has_edges])])


def _otsu(counts: np.ndarray) -> float:
    """The threshold in [0, 1] that parts a histogram into the two classes with the largest variance between them."""
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    summed = np.cumsum(counts * np.arange(len(counts)))
    apart = summed[:-1] / np.maximum(below, 1) - (summed[-1] - summed[:-1]) / np.maximum(above, 1)
    between = below * above * apart**2 * ((below > 0) & (above > 0))
    return (int(np.argmax(between)) + 1) / len(counts) if between.any() else -1.0


def _lay_out(graph, label: np.ndarray, cost: CostConfig, seed: int) -> np.ndarray:
    """Communities in the Fiedler order of their quotient; inside one by the mean rank of its neighbours'."""
    D = graph.shape[0]
    label = np.where(np.diff(graph.indptr) > 0, label + 1, 0)  # what has no edges is one community, put last below
    label = np.unique(label, return_inverse=True)[1]
    count = int(label.max()) + 1
    member = sp.csr_array((np.ones(D), (np.arange(D), label)), shape=(D, count))
    to_community = sp.csr_array(graph @ member)
    quotient = sp.csr_array(member.T @ to_community)
    quotient.setdiag(0)
    quotient.eliminate_zeros()
    rank = np.empty(count)
    rank[order_spectral(quotient, cost, seed)] = np.arange(count)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    pull = (to_community @ rank) / np.where(degree > 0, degree, 1)
    return _isolated_last(graph, np.lexsort((np.arange(D), pull, rank[label])))


def louvain_communities(graph, resolution: float) -> np.ndarray:
    """Labels int64 (D,) of Louvain's method: local moving, contraction, again, until nothing joins."""
    from icd_lib.solver import graph_kernels, kernels

    indptr, indices, data = graph.indptr.astype(np.int64), graph.indices, graph.data
    inner, label = np.zeros(graph.shape[0]), np.arange(graph.shape[0])
    while len(data):
        moved = graph_kernels.move_to_communities(indptr, indices, data, inner, resolution, LOUVAIN_PASSES)
        found, count = graph_kernels.number_labels(moved)
        if count == len(inner):
            return label
        label = found[label]
        inside = np.bincount(found, weights=kernels.sum_rows(indptr, data) + inner, minlength=count)
        indptr, indices, data = graph_kernels.contract(indptr, indices, data, found, count)
        inner = np.maximum(inside - kernels.sum_rows(indptr, data), 0.0)
    return label


def leiden_communities(graph, resolution: float, seed: int) -> np.ndarray:
    """Labels int64 (D,) of igraph's Leiden; `ResourceError` without igraph."""
    igraph = load_optional("igraph")
    upper = sp.triu(graph, 1).tocoo()
    network = igraph.Graph(n=graph.shape[0], edges=np.column_stack(upper.coords))
    weights = (upper.data / upper.data.max() if upper.nnz else upper.data).tolist()
    igraph.set_random_number_generator(random.Random(seed))
    try:
        found = network.community_leiden("modularity", weights=weights, resolution=resolution, n_iterations=4)
    finally:
        igraph.set_random_number_generator(random)  # igraph's own default
    return np.asarray(found.membership, dtype=np.int64)
