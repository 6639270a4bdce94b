"""Access graph W' after a transform: what is alive is touched together by every token, what is dead never."""

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph.contract import check_w
from icd_lib.graph.sparsify import build_symmetric, check_nnz_cap, find_heaviest


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
    edge_cap = check_nnz_cap(nnz_cap)
    if not 0 <= base_share <= 1:
        raise ConfigError(f"base_share is a fraction in [0, 1], got {base_share!r}")
    if not (bytes_per_element > 0 and events > 0):
        raise ConfigError(f"bytes_per_element and events are positive, got {bytes_per_element!r} and {events!r}")
    size, ids = len(alive), np.flatnonzero(alive)
    w = activity[ids]
    total = bytes_per_element * events * (w.sum() ** 2 - (w**2).sum()) / 2
    base_edges = _base_edges(base, alive, edge_cap if base_share == 1 else edge_cap // 2)
    share = base_share if len(base_edges[2]) else 0.0
    room = edge_cap - len(base_edges[2])
    rows, cols = (ids[ranks] for ranks in _complete_or_circulant(len(ids), room))
    spread = activity[rows] * activity[cols]
    parts = [
        (rows, cols, _scale_to(spread, (1 - share) * total)),
        (*base_edges[:2], _scale_to(base_edges[2], share * total)),
    ]
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
    summed = weights.sum()
    return weights * (total / summed) if summed > 0 else weights
