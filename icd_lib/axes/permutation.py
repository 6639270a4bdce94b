"""Permutations: one convention, one check, one inverse, one hash.

Convention (gather): `perm[new_position] = old_index`, so `new = old[perm]`.
"""

import hashlib

import numpy as np

from icd_lib.errors import AxisError


def check_permutation(perm, size: int, name: str = "axis") -> np.ndarray:
    """Return `perm` as an int64 array of shape (size,), or raise `AxisError`.

    >>> check_permutation([2, 0, 1], 3)
    array([2, 0, 1])
    """
    try:
        array = np.asarray(perm)
    except ValueError as error:  # a list of lists of several lengths
        raise AxisError(f"{name}: a permutation is a 1-D integer array ({error})") from error
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise AxisError(f"{name}: a permutation is a 1-D integer array, got {array.dtype} of shape {array.shape}")
    if len(array) != size:
        raise AxisError(
            f"{name} has {size} elements but the permutation has {len(array)}; rebuild it with icd.fit_permutation"
        )
    array = array.astype(np.int64)
    outside = array[(array < 0) | (array >= size)]
    if outside.size:
        raise AxisError(f"{name}: permutation index {int(outside[0])} is outside 0..{size - 1}")
    counts = np.bincount(array, minlength=size)
    if (counts != 1).any():
        raise AxisError(f"{name}: index {int(np.argmax(counts > 1))} appears more than once in the permutation")
    return array


def invert_permutation(perm: np.ndarray) -> np.ndarray:
    """Return `inverse` with `inverse[perm[i]] = i`.

    >>> invert_permutation(np.array([2, 0, 1]))
    array([1, 2, 0])
    """
    inverse = np.empty_like(perm)
    inverse[perm] = np.arange(len(perm))
    return inverse


def hash_permutation(perm: np.ndarray) -> str:
    """sha256 of the permutation as little-endian int64 (the same on every machine)."""
    return hashlib.sha256(np.ascontiguousarray(perm, dtype="<i8").tobytes()).hexdigest()


def pack_alive(perm: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """The same order with everything alive first: a stable partition, so no two alive elements move apart.

    >>> pack_alive(np.array([2, 0, 1, 3]), np.array([True, False, True, True]))
    array([2, 0, 3, 1])
    """
    inside = alive[perm]
    return np.concatenate([perm[inside], perm[~inside]])
