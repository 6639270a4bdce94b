"""Which columns stay float, alone or by whole tiles of a layout."""

import numpy as np


def widest(far: np.ndarray, share: float, granule: int = 1) -> np.ndarray:
    """Bool (D,): the `share` of the channels (at least one) that stick out most, with all that share a tile with them.

    far (D,): how far each sticks out; tiles are `granule` consecutive channels. Ties fall to the lower index.

    >>> widest(np.array([1.0, 9.0, 2.0, 3.0]), 0.25).tolist()
    [False, True, False, False]
    >>> widest(np.array([1.0, 9.0, 2.0, 3.0]), 0.25, granule=2).tolist()
    [True, True, False, False]
    """
    count = max(1, round(share * len(far)))
    chosen = np.zeros(len(far), dtype=bool)
    chosen[np.argsort(-far, kind="stable")[:count]] = True
    tiles = np.unique(np.flatnonzero(chosen) // granule)
    return np.isin(np.arange(len(far)) // granule, tiles)
