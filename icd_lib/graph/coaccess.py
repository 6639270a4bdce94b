"""From a stream of access events to W: the bytes that two elements are touched together, in bounded memory."""

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph.events import Events
from icd_lib.graph.sparsify import build_symmetric, check_nnz_cap, dropped_of, find_heaviest, total_bytes

# As many edges fit into 256 MiB of table (2^24 slots of 16 bytes at the load below): all pairs of 4,472 elements.
LEAST_EDGES, EDGES_PER_KEPT = 10_000_000, 4
_FIRST_CAPACITY, _MOST_LOAD = 1 << 16, 0.6


class CoaccessStream:
    """Counts who is touched together with whom, chunk by chunk; holds edges and the last `window` - 1 events.

    W_ij = sum over events of the bytes per element, where i and j are both in the event, plus, with `window` > 1, for
    every two events fewer than `window` apart the smaller of their bytes, for i in one and j in the other. An id that
    repeats within an event counts once.

    Exact for events of at most `max_event_ids` distinct ids. A larger one would have quadratically many pairs: of
    those a deterministic random sample is counted, fewer than max_event_ids for each id, reweighted so that every pair
    keeps its expected weight; `sampled_events` counts such events. Exact, too, while at most `max_edges` edges are met
    (by default the larger of 10 million and 4 times those that `nnz_cap` keeps; 27 to 54 bytes each): beyond it the
    lighter half is dropped, as in lossy counting (Manku and Motwani 2002). Then no edge's weight is too low by more
    than `undercount_bytes`, and `pruned_bytes` is the sum of what was dropped. How the stream is cut into chunks does
    not change the result.
    """

    def __init__(
        self, *, window: int = 1, nnz_cap: int = 200_000, max_event_ids: int = 256, max_edges: int | None = None
    ):
        self.edge_cap = check_nnz_cap(nnz_cap)
        self.window = _check_least("window", window, 1)
        self.max_event_ids = _check_least("max_event_ids", max_event_ids, 3)
        least = max(LEAST_EDGES, EDGES_PER_KEPT * self.edge_cap)
        self.max_edges = least if max_edges is None else _check_least("max_edges", max_edges, 2)
        self.size = 0
        self.events = self.accesses = self.sampled_events = self.prunes = 0
        self.pruned_bytes = self.undercount_bytes = 0.0
        self._keys, self._values = _empty_table(_FIRST_CAPACITY)
        self._used = 0
        self._tail: tuple[list[np.ndarray], list[float]] = ([], [])
        self._stamp = np.empty(0, np.int64)

    def update(self, chunk: Events) -> "CoaccessStream":
        """Count the events of a chunk, which follow those of earlier chunks; its size may grow from chunk to chunk."""
        from icd_lib.graph import pair_kernels  # numba loads slowly, and only streams need it here

        if not isinstance(chunk, Events):
            raise SolverNotConverged(f"a stream takes icd_lib.graph.Events, got {type(chunk).__name__}")
        self.size = max(self.size, chunk.size)
        if len(self._stamp) < self.size:
            self._stamp = np.concatenate([self._stamp, np.full(self.size - len(self._stamp), -1, np.int64)])
        ids, offsets = pair_kernels.distinct_ids(chunk.ids, chunk.offsets, self._stamp, self.events)
        self.sampled_events += int(np.count_nonzero(np.diff(offsets) > self.max_event_ids))
        before = len(self._tail[0])
        ids, offsets, nbytes = self._with_tail(ids, offsets, chunk.nbytes)
        self._count(pair_kernels, ids, offsets, nbytes, before)
        self.events += chunk.count
        self.accesses += chunk.accesses
        kept = range(max(0, len(nbytes) - self.window + 1), len(nbytes))
        self._tail = [ids[offsets[e] : offsets[e + 1]].copy() for e in kept], [float(nbytes[e]) for e in kept]
        return self

    def graph(self) -> tuple[sp.csr_array, dict]:
        """(W csr_array (D, D) in bytes, metadata): the heaviest edges, and what was counted, sampled and dropped."""
        if not self.events:
            raise SolverNotConverged("the stream has no events; call update() with at least one")
        keys, weights = _sorted_edges(self._keys, self._values)
        keep = find_heaviest(weights, self.edge_cap)
        rows, cols = keys[keep] >> 32, keys[keep] & 0xFFFFFFFF
        W = build_symmetric(rows, cols, weights[keep], self.size)
        meta = {
            **dropped_of(W, len(keys), total_bytes(weights)),
            "events": self.events,
            "accesses": self.accesses,
            "window": self.window,
            "sampled_events": self.sampled_events,
            "max_event_ids": self.max_event_ids,
            "prunes": self.prunes,
            "pruned_bytes": self.pruned_bytes,
            "undercount_bytes": self.undercount_bytes,
            "exact": not (self.sampled_events or self.prunes),
        }
        return W, meta

    def _with_tail(self, ids, offsets, nbytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        earlier, weights = self._tail
        if not earlier:
            return ids, offsets, nbytes
        lengths = np.concatenate([[0], [len(event) for event in earlier], np.diff(offsets)])
        return np.concatenate([*earlier, ids]), np.cumsum(lengths), np.concatenate([weights, nbytes])

    def _count(self, pair_kernels, ids, offsets, nbytes, event: int) -> None:
        number, lag, forced = self.events - event, 0, False
        while True:
            room = min(self.max_edges, int(len(self._keys) * _MOST_LOAD))
            step = event, lag, self.window, number, self.max_event_ids
            event, lag, self._used = pair_kernels.pair_up(
                ids, offsets, nbytes, *step, self._keys, self._values, self._used, room, forced
            )
            if event == len(nbytes):
                return
            here, there = (int(offsets[e + 1] - offsets[e]) for e in (event, event - lag))
            needed = int(pair_kernels.count_pairs(here, there if lag else -1, self.max_event_ids))
            # Only the stream decides when to prune, never the table's present capacity or a chunk's end.
            if self._used + needed > self.max_edges and self._used > self.max_edges // 2:
                self._prune(pair_kernels)
            self._reserve(pair_kernels, self._used + needed)
            forced = True

    def _prune(self, pair_kernels) -> None:
        keys, weights = _sorted_edges(self._keys, self._values)
        keep = find_heaviest(weights, self.max_edges // 2)
        light = np.ones(len(weights), bool)
        light[keep] = False
        self.prunes += 1
        self.pruned_bytes += float(weights[light].sum())
        self.undercount_bytes += float(weights[light].max())
        self._keys, self._values = _empty_table(len(self._keys))
        pair_kernels.rehash(keys[keep], weights[keep], self._keys, self._values)
        self._used = len(keep)

    def _reserve(self, pair_kernels, edges: int) -> None:
        capacity = len(self._keys)
        while edges > capacity * _MOST_LOAD:
            capacity *= 2
        if capacity > len(self._keys):
            keys, values = _empty_table(capacity)
            pair_kernels.rehash(self._keys, self._values, keys, values)
            self._keys, self._values = keys, values


def _empty_table(capacity: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(capacity, -1, np.int64), np.zeros(capacity)


def _sorted_edges(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys (ascending) and weights of a table's edges."""
    taken = np.flatnonzero(keys >= 0)
    keys = keys[taken]
    order = np.argsort(keys, kind="stable")
    return keys[order], values[taken[order]]


def _check_least(name: str, value, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is an integer >= {least}, got {value!r}")
    return int(value)
