"""Pruning a table: rows that are touched little leave it, with scatter, wherever they lie."""

import numpy as np

from icd_lib.errors import TransformError
from icd_lib.transforms.effects import Alive


def prune_rows(touches: np.ndarray, dead_share: float, *, scatter: float = 1.0, seed: int = 0) -> Alive:
    """Which rows stay: the `dead_share` of them with the least saliency are dead.

    touches int (D,): accesses of each row; saliency = log(1 + touches) + scatter * N(0, 1), the second term standing
    for what a row is worth besides its use. Of equal saliencies the later row dies. `loss` is the share of the accesses
    that went to dead rows. Deterministic in `seed`. Raises `TransformError` when nothing would be left to read.

    >>> prune_rows(np.array([5, 0, 9, 1]), 0.5, scatter=0.0).alive
    array([ True, False,  True, False])
    """
    size = len(touches)
    kept = size - round(dead_share * size)
    saliency = np.log1p(touches) + scatter * np.random.default_rng(seed).standard_normal(size)
    alive = np.zeros(size, dtype=bool)
    alive[np.argsort(-saliency, kind="stable")[:kept]] = True
    total = int(touches.sum())
    if not touches[alive].any():
        raise TransformError(
            f"removing {dead_share:.0%} of {size:,} rows leaves none that is ever read; lower transform.dead_share"
        )
    return Alive("rows", "rows", alive, saliency, 1 - int(touches[alive].sum()) / total)
