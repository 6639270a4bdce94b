"""One door to every kind of access graph: a table from kind to builder."""

import difflib
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph.coactivation import CoactivationStream
from icd_lib.graph.contract import check_w
from icd_lib.graph.mask import mask_graph


def build_coactivation(source, *, nnz_cap: int = 200_000, bytes_per_element: float = 4) -> sp.csr_array:
    """W from activations: one array (tokens, D) or an iterable of them, read once and not kept."""
    batches = [source] if hasattr(source, "shape") else source
    stream = None
    for batch in batches:
        stream = stream or CoactivationStream(batch.shape[-1], nnz_cap)
        stream.update(batch)
    if stream is None:
        raise SolverNotConverged("co-activation got no batches; expected at least one array of shape (tokens, D)")
    return stream.graph(bytes_per_element)


GRAPH_KINDS: dict[str, Callable[..., sp.csr_array]] = {
    "co-activation": build_coactivation,
    "mask": mask_graph,
}


def build_w(source, *, kind: str | None = None, **cfg) -> sp.csr_array:
    """Access graph W of `source`, csr_array (D, D), checked against the contract of `check_w`.

    kind "co-activation": source is activations (tokens, D) or an iterable of them; "mask": source is alive, bool (D,).
    Without `kind` a 1-D bool array is a mask and anything else activations. `cfg` goes to the kind's builder; an
    unknown setting raises `TypeError`, an unknown kind `ConfigError`.

    >>> build_w(np.array([True, False, True]), bytes_per_element=4).toarray()[0]
    array([0., 0., 4.])
    """
    if kind is None:
        is_mask = getattr(source, "ndim", None) == 1 and np.asarray(source).dtype == bool
        kind = "mask" if is_mask else "co-activation"
    if kind not in GRAPH_KINDS:
        near = difflib.get_close_matches(str(kind), GRAPH_KINDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"graph kind {kind!r} is unknown, expected one of {sorted(GRAPH_KINDS)}{hint}")
    return check_w(GRAPH_KINDS[kind](source, **cfg))
