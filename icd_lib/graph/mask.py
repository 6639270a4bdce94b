"""Access graph W' after a transform: what is alive, or in one group, is touched together; what is dead never."""

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph.contract import check_w
from icd_lib.graph.sparsify import build_symmetric, check_nnz_cap, find_heaviest

MOST_ACTIVITY = MOST_FACTOR = 1e60  # so that the bytes of all pairs are a float64


def mask_graph(
    alive,
    weights=None,
    *,
    base: sp.sparray | None = None,
    base_share: float = 0.5,
    bytes_per_element: float = 4,
    events: float = 1,
    nnz_cap: int = 200_000,
) -> sp.csr_array:
    """W', csr_array (D, D) in bytes; alive bool (D,), weights (D,) >= 0 = share of events that touch each element.

    The truth is the complete graph on the n alive elements, W'_ij = bytes * events * w_i * w_j (w = 1 by default). With
    more than `nnz_cap` entries it is replaced by a circulant graph on the alive ranks, offsets spread evenly over
    1..n//2: connected (even where 2n > nnz_cap), the same degree everywhere, all rank distances sampled alike. With
    `base` (a co-activation W) a share `base_share` of the bytes lies on its heaviest alive edges instead, in proportion
    to its weights, which orders the alive among themselves. The total in bytes is always that of the complete graph.
    Raises `SolverNotConverged` on bad arrays, `ConfigError` on bad settings.
    """
    alive, activity = _check_alive(alive, weights)
    return _joined([np.flatnonzero(alive)], activity, base, base_share, bytes_per_element, events, nnz_cap)


def group_graph(
    groups,
    *,
    base: sp.sparray | None = None,
    base_share: float = 0.5,
    bytes_per_element: float = 4,
    events: float = 1,
    nnz_cap: int = 200_000,
) -> sp.csr_array:
    """W' of elements that are touched group by group, csr_array (D, D) in bytes; groups int (D,), -1 = touched never.

    The truth is a complete graph on every group; it is thinned and mixed with `base` as in `mask_graph`, which is the
    graph of one group. The edges of `base` also join groups, which orders the groups among themselves.
    Raises `SolverNotConverged` on bad arrays, `ConfigError` on bad settings.
    """
    groups = np.asarray(groups)
    if groups.ndim != 1 or not len(groups) or not np.issubdtype(groups.dtype, np.integer) or groups.min() < -1:
        raise SolverNotConverged(
            f"groups is an int array of shape (D,) with numbers >= -1, got {groups.dtype} of shape {groups.shape}"
        )
    members = [np.flatnonzero(groups == number) for number in np.unique(groups[groups >= 0])]
    return _joined(members, np.ones(len(groups)), base, base_share, bytes_per_element, events, nnz_cap)


def _joined(
    groups: list[np.ndarray],
    activity: np.ndarray,
    base,
    base_share: float,
    element_bytes: float,
    events: float,
    nnz_cap,
) -> sp.csr_array:
    """The graph in which the elements of every group (indices) are joined, by their activity (D,)."""
    edge_cap = check_nnz_cap(nnz_cap)
    if not 0 <= base_share <= 1:
        raise ConfigError(f"base_share is a fraction in [0, 1], got {base_share!r}")
    if not (0 < element_bytes <= MOST_FACTOR and 0 < events <= MOST_FACTOR):
        raise ConfigError(
            f"bytes_per_element and events are positive, up to {MOST_FACTOR:g}; got {element_bytes!r} and {events!r}"
        )
    size = len(activity)
    touched = np.zeros(size, dtype=bool)
    for ids in groups:
        touched[ids] = True
    base_edges = _base_edges(base, touched, edge_cap if base_share == 1 else edge_cap // 2)
    share = base_share if len(base_edges[2]) else 0.0
    room, pairs = edge_cap - len(base_edges[2]), sum(len(ids) ** 2 for ids in groups)
    parts, total = [], 0.0
    for ids in groups:
        w = activity[ids]
        bytes_of_group = element_bytes * events * (w.sum() ** 2 - (w**2).sum()) / 2
        rows, cols = (ids[ranks] for ranks in _complete_or_circulant(len(ids), room * len(ids) ** 2 // max(pairs, 1)))
        parts.append((rows, cols, _scale_to(activity[rows] * activity[cols], (1 - share) * bytes_of_group)))
        total += bytes_of_group
    parts.append((*base_edges[:2], _scale_to(base_edges[2], share * total)))
    edges = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return build_symmetric(*edges, size)


def _check_alive(alive, weights) -> tuple[np.ndarray, np.ndarray]:
    alive = np.asarray(alive)
    if alive.ndim != 1 or alive.dtype != bool or not len(alive):
        raise SolverNotConverged(f"alive is a bool array of shape (D,), got {alive.dtype} of shape {alive.shape}")
    activity = np.ones(len(alive)) if weights is None else np.asarray(weights, dtype=np.float64)
    if activity.shape != alive.shape:
        raise SolverNotConverged(f"weights have shape {activity.shape}, expected {alive.shape} as alive")
    bad = np.flatnonzero(~(np.isfinite(activity) & (activity >= 0)))
    if bad.size:
        raise SolverNotConverged(f"weights[{int(bad[0])}] = {activity[bad[0]]}; expected a finite number >= 0")
    if activity.max() > MOST_ACTIVITY:
        raise SolverNotConverged(f"weights are shares of events, at most {MOST_ACTIVITY:g}; got {activity.max()}")
    return alive, activity


def _base_edges(base, alive: np.ndarray, cap: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if base is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    base = check_w(base)
    if base.shape[0] != len(alive):
        raise SolverNotConverged(f"base has {base.shape[0]} elements but alive has {len(alive)}; use W of this axis")
    rows = np.repeat(np.arange(len(alive)), np.diff(base.indptr))
    cols = base.indices.astype(np.int64)
    inside = (rows < cols) & alive[rows] & alive[cols]
    rows, cols, weights = rows[inside], cols[inside], base.data[inside]
    keep = find_heaviest(weights, cap)
    return rows[keep], cols[keep], weights[keep]


def _complete_or_circulant(n: int, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges (lower rank, higher rank) of K_n if they fit into `room`, else of a connected circulant of n ranks."""
    if n * (n - 1) // 2 <= room:
        return np.triu_indices(n, 1)
    count = max(1, room // n)
    # Offset 1 first, so that the graph is connected; never n/2, whose edges would be counted twice.
    longest = (n - 1) // 2
    offsets = np.unique(1 + np.arange(count) * max(longest - 1, 0) // max(count - 1, 1))
    start = np.arange(n)
    rows = np.tile(start, len(offsets))
    cols = (rows + np.repeat(offsets, n)) % n
    return np.minimum(rows, cols), np.maximum(rows, cols)


def _scale_to(weights: np.ndarray, total: float) -> np.ndarray:
    """Weights in the same proportions that sum to `total`, whatever they sum to now."""
    if not weights.any():
        return weights
    with np.errstate(over="ignore"):
        factor = total / weights.sum()
    if 0 < factor < np.inf:
        return weights * factor
    share = weights / weights.max()
    return share * (total / share.sum())
