"""One door to every kind of access graph: a table from kind to builder."""

import difflib
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph.coactivation import CoactivationStream
from icd_lib.graph.contract import check_w
from icd_lib.graph.events import Events
from icd_lib.graph.mask import mask_graph
from icd_lib.graph.mock import planted_graph
from icd_lib.graph.normalize import check_normalization, normalize_graph
from icd_lib.graph.sparsify import cap_edges, check_nnz_cap
from icd_lib.graph.trace import build_trace

Built = tuple[sp.csr_array, dict]


def build_coactivation(
    source,
    *,
    nnz_cap: int = 200_000,
    bytes_per_element: float = 4,
    sketch_rows: int | None = None,
    whiten: float | None = None,
) -> Built:
    """(W, metadata) of activations: one array (tokens, D) or an iterable of them, read once and not kept."""
    batches = [source] if hasattr(source, "shape") else source
    stream = None
    for batch in batches:
        stream = stream or CoactivationStream(batch.shape[-1], nnz_cap, sketch_rows=sketch_rows, whiten=whiten)
        stream.update(batch)
    if stream is None:
        raise SolverNotConverged("co-activation got no batches; expected at least one array of shape (tokens, D)")
    return stream.graph(bytes_per_element), stream.meta


def build_mask(source, *, nnz_cap: int = 200_000, **settings) -> Built:
    """(W, metadata) of alive, bool (D,): see `mask_graph`, which keeps the total of bytes when it thins out."""
    W = mask_graph(source, nnz_cap=nnz_cap, **settings)
    alive = int(np.count_nonzero(source))
    every = alive * (alive - 1) // 2
    # Dropped edges hand their bytes to the kept ones.
    meta = {"edges": W.nnz // 2, "bytes": float(W.data.sum()) / 2, "dropped_edges": every - W.nnz // 2}
    return W, {**meta, "dropped_bytes": 0.0, "alive": alive, "exact": W.nnz // 2 == every}


def build_mock(source, *, nnz_cap: int = 200_000, **settings) -> Built:
    """(W, metadata) of planted blocks: source is D, settings are those of `planted_graph`."""
    graph, _ = planted_graph(source, **settings)
    W, meta = cap_edges(graph, nnz_cap)
    return W, {**meta, "settings": settings}


def build_matrix(source, *, nnz_cap: int = 200_000) -> Built:
    """(W, metadata) of a symmetric scipy.sparse matrix."""
    return cap_edges(check_w(source), nnz_cap)


def build_pytorch(source, **settings) -> Built:
    """(W, metadata) of a module's tensors: see `module_graph`."""
    from icd_lib.graph.module_graph import build_module  # torch loads slowly, and only modules need it

    return build_module(source, **settings)


GRAPH_KINDS: dict[str, Callable[..., Built]] = {
    "mock": build_mock,
    "trace": build_trace,
    "co-activation": build_coactivation,
    "mask": build_mask,
    "pytorch": build_pytorch,
    "matrix": build_matrix,
}


def build_w(
    source,
    *,
    kind: str | None = None,
    nnz_cap: int = 200_000,
    normalize: str = "none",
    return_meta: bool = False,
    **cfg,
) -> sp.csr_array | Built:
    """Access graph W of `source`, csr_array (D, D) float64, checked against the contract of `check_w`.

    | kind | source | settings |
    |---|---|---|
    | mock | D | `planted_graph`: blocks, sizes, degree, noise, seed, shuffled |
    | trace | a path, `Events` or an iterable of them | `trace_graph`: window, size, max_event_ids, max_edges |
    | co-activation | activations (tokens, D), or an iterable | bytes_per_element, sketch_rows, whiten |
    | mask | alive, bool (D,) | `mask_graph`: weights, base, base_share, bytes_per_element, events |
    | pytorch | an `nn.Module` or `ExportedProgram` | `module_graph`: example_inputs, hops, decay, byte_weight |
    | matrix | a symmetric scipy.sparse matrix | |

    Without `kind` it follows from the type of the source. Weights are bytes touched together; of them the `nnz_cap`
    heaviest stored entries are kept (each edge is stored twice), and `normalize` ("row", "sym") then takes their unit
    away. With `return_meta` the result is (W, metadata): kind, D, edges and bytes kept, dropped_edges and dropped_bytes
    (of weights before normalization), the kind's own figures, and the sha256 of W.

    Raises `ConfigError` on an unknown kind or a setting out of range, `TypeError` on an unknown setting,
    `SolverNotConverged` on bad arrays and `ArtifactError` on bad files.

    >>> build_w(np.array([True, False, True]), bytes_per_element=4).toarray()[0]
    array([0., 0., 4.])
    """
    kind = find_kind(source) if kind is None else kind
    if kind not in GRAPH_KINDS:
        near = difflib.get_close_matches(str(kind), GRAPH_KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"graph kind {kind!r} is unknown, expected one of {sorted(GRAPH_KINDS)}{hint}")
    check_nnz_cap(nnz_cap)
    check_normalization(normalize)
    graph, meta = GRAPH_KINDS[kind](source, nnz_cap=nnz_cap, **cfg)
    W = check_w(normalize_graph(graph, normalize))
    if not return_meta:
        return W
    what = {"kind": kind, "D": W.shape[0], "nnz_cap": int(nnz_cap), "normalize": normalize}
    return W, {**what, **meta, "sha256": hash_graph(W)}


def find_kind(source) -> str:
    """The kind of graph that the type of `source` asks for."""
    if isinstance(source, str | Path | Events):
        return "trace"
    if sp.issparse(source):
        return "matrix"
    if isinstance(source, int | np.integer) and not isinstance(source, bool):
        return "mock"
    # An exported program has neither shape nor batches; a module is recognised without importing torch.
    if hasattr(source, "named_parameters") and not hasattr(source, "shape"):
        return "pytorch"
    if getattr(source, "ndim", None) == 1 and np.asarray(source).dtype == bool:
        return "mask"
    return "co-activation"


def hash_graph(W: sp.csr_array) -> str:
    """sha256 of a graph that `check_w` returned: shape, pointers, columns and weights, little-endian."""
    digest = hashlib.sha256(np.array(W.shape, dtype="<i8").tobytes())
    for array, dtype in ((W.indptr, "<i8"), (W.indices, "<i8"), (W.data, "<f8")):
        digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
    return digest.hexdigest()
