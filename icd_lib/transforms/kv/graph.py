"""The access graph of the cache's token axis: which tokens are read together."""

import numpy as np
import scipy.sparse as sp

from icd_lib.errors import TransformError
from icd_lib.graph.build import build_w
from icd_lib.graph.events import Events


def token_graph(alive: np.ndarray, bytes_per_token: float, *, nnz_cap: int = 200_000) -> sp.csr_array:
    """W of n cached tokens, csr_array (n, n): W_ij = bytes_per_token · number of readers that read both i and j.

    alive: bool (readers, n), a reader being one row and KV group of a layer, which reads all its living tokens at every
    step. An order that brings together what is read together fills whole pages. Raises `TransformError` on another
    shape.

    >>> token_graph(np.array([[True, True, False], [True, True, True]]), 8.0).toarray()[0]
    array([ 0., 16.,  8.])
    """
    alive = np.asarray(alive)
    if alive.ndim != 2 or alive.dtype != bool or not alive.size:
        raise TransformError(f"alive is bool of shape (readers, tokens), got {alive.dtype} of shape {alive.shape}")
    readers, size = alive.shape
    offsets = np.concatenate([[0], np.cumsum(alive.sum(1))])
    events = Events(np.nonzero(alive)[1], offsets, np.full(readers, float(bytes_per_token)), size)
    return build_w(events, kind="trace", size=size, max_event_ids=max(3, size), nnz_cap=nnz_cap)
