"""Compiled passes over a canonical CSR: single thread, linear in the non-zeros, no copies. Imported on first use."""

import numpy as np
from numba import njit

FINE, NOT_FINITE, NEGATIVE, DIAGONAL = 0, 1, 2, 3


@njit(cache=True)
def find_broken_row(indptr, indices, D):
    """First row whose pointers or column numbers are impossible, or -1; every other kernel relies on it."""
    for i in range(D):
        if indptr[i + 1] < indptr[i] or indptr[i + 1] > len(indices):
            return i
        for e in range(indptr[i], indptr[i + 1]):
            if indices[e] < 0 or indices[e] >= D:
                return i
    return -1


@njit(cache=True)
def is_canonical(indptr, indices, data):
    """Whether every row is strictly ascending and no zero is stored."""
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            if data[e] == 0 or (e > indptr[i] and indices[e] <= indices[e - 1]):
                return False
    return True


@njit(cache=True)
def find_fault(indptr, indices, data):
    """(what, entry) of the first weight in row order that is not finite, negative or on the diagonal."""
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            if not np.isfinite(data[e]):
                return NOT_FINITE, e
            if data[e] < 0:
                return NEGATIVE, e
            if indices[e] == i:
                return DIAGONAL, e
    return FINE, -1


@njit(cache=True)
def is_symmetric(indptr, indices, data):
    """Whether W_ij = W_ji for every entry.

    Rows are read in order, so row j meets its smaller neighbours i in exactly the order in which it stores them: one
    cursor per row replaces the transpose.
    """
    D = len(indptr) - 1
    cursor = indptr[:-1].copy()
    for i in range(D):
        # All smaller neighbours that row i stores must have been met, and no others.
        if cursor[i] < indptr[i + 1] and indices[cursor[i]] < i:
            return False
        for e in range(cursor[i], indptr[i + 1]):
            j = indices[e]
            at = cursor[j]
            if at == indptr[j + 1] or indices[at] != i or data[at] != data[e]:
                return False
            cursor[j] = at + 1
    return True


@njit(cache=True)
def find_asymmetry(indptr, indices, data):
    """The first pair (i, j), i < j, in row order with W_ij != W_ji, or (-1, -1). O(nnz log degree)."""
    D = len(indptr) - 1
    first, second = D, D
    for a in range(D):
        for e in range(indptr[a], indptr[a + 1]):
            b = indices[e]
            low, high = indptr[b], indptr[b + 1]
            while low < high:
                middle = (low + high) // 2
                if indices[middle] < a:
                    low = middle + 1
                else:
                    high = middle
            if low < indptr[b + 1] and indices[low] == a and data[low] == data[e]:
                continue
            i, j = min(a, b), max(a, b)
            if i < first or (i == first and j < second):
                first, second = i, j
    return (first, second) if first < D else (-1, -1)


@njit(cache=True)
def mirror_edges(rows, cols, weights, D):
    """(indptr int64, indices, data) of the symmetric CSR of edges i < j that are sorted by (i, j) and distinct."""
    indptr = np.zeros(D + 1, np.int64)
    below = np.zeros(D, np.int64)
    for e in range(len(rows)):
        indptr[rows[e] + 1] += 1
        indptr[cols[e] + 1] += 1
        below[cols[e]] += 1
    for i in range(D):
        indptr[i + 1] += indptr[i]
    lower = indptr[:-1].copy()  # where the next smaller neighbour of a row goes
    upper = indptr[:-1] + below  # and the next larger one
    indices = np.empty(indptr[D], np.int32)
    data = np.empty(indptr[D])
    for e in range(len(rows)):
        i, j = rows[e], cols[e]
        indices[upper[i]], data[upper[i]] = j, weights[e]
        indices[lower[j]], data[lower[j]] = i, weights[e]
        upper[i] += 1
        lower[j] += 1
    return indptr, indices, data
