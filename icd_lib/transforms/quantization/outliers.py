"""Which columns stay float, alone or by whole tiles of a layout."""

import numpy as np


def widest(far: np.ndarray, share: float, granule: int = 1, multiple: int = 1) -> np.ndarray:
    """Bool (D,): the `share` of the channels (at least one) that stick out most, with all that share a tile with them.

    far (D,): how far each sticks out; tiles are `granule` consecutive channels. Ties fall to the lower index. multiple:
    the share is rounded up to one of it, so that a layout that gathers it has whole tiles.

    >>> widest(np.array([1.0, 9.0, 2.0, 3.0]), 0.25).tolist()
    [False, True, False, False]
    >>> widest(np.array([1.0, 9.0, 2.0, 3.0]), 0.25, granule=2).tolist()
    [True, True, False, False]
    >>> widest(np.array([1.0, 9.0, 2.0, 3.0]), 0.25, multiple=2).tolist()
    [False, True, False, True]
    """
    count = multiple * -(-max(1, round(share * len(far))) // multiple)
    chosen = np.zeros(len(far), dtype=bool)
    chosen[np.argsort(-far, kind="stable")[:count]] = True
    tiles = np.unique(np.flatnonzero(chosen) // granule)
    return np.isin(np.arange(len(far)) // granule, tiles)
