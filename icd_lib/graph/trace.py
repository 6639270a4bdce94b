"""Access graph of a recorded trace: what a program really touched together."""

from pathlib import Path
from typing import Any

import scipy.sparse as sp

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph.coaccess import CoaccessStream
from icd_lib.graph.contract import check_w
from icd_lib.graph.events import Events, check_size
from icd_lib.graph.normalize import normalize_graph
from icd_lib.graph.trace_file import is_triples, iter_events, read_events

__all__ = ["build_trace", "iter_events", "read_events", "trace_graph"]


def trace_graph(
    source,
    *,
    window: int = 1,
    size: int | None = None,
    nnz_cap: int = 200_000,
    normalize: str = "none",
    max_event_ids: int = 256,
    max_edges: int | None = None,
) -> sp.csr_array:
    """W, csr_array (D, D): bytes that i and j are touched together, within `window` consecutive events (1: within one).

    source: path of a trace (`iter_events`), `Events`, or an iterable of `Events` chunks; read once, never held. `size`
    is D, without it one more than the largest id. `max_event_ids`, `max_edges`: what is exact, see `CoaccessStream`.
    Raises `ArtifactError` with the line number on a bad trace, `ConfigError` on bad settings.
    """
    settings: dict[str, Any] = {"window": window, "size": size, "nnz_cap": nnz_cap, "max_event_ids": max_event_ids}
    return check_w(normalize_graph(build_trace(source, max_edges=max_edges, **settings)[0], normalize))


def build_trace(source, *, window: int = 1, size: int | None = None, **limits) -> tuple[sp.csr_array, dict]:
    """As `trace_graph`, without normalization and with metadata; `limits` go to `CoaccessStream`."""
    stream = CoaccessStream(window=window, **limits)
    size = None if size is None else check_size(size)
    if isinstance(source, str | Path):
        if window > 1 and is_triples(source):
            raise ConfigError(f"a trace of i,j,weight triples has no order in time; window must be 1, got {window}")
        source = iter_events(source, size=size)
    for chunk in [source] if isinstance(source, Events) else source:
        stream.update(chunk)
    graph, meta = stream.graph()
    if size is None or size == stream.size:
        return graph, meta
    if size < stream.size:
        raise SolverNotConverged(f"size is {size}, but the events are of an axis of {stream.size} elements")
    graph.resize((size, size))
    return graph, meta
