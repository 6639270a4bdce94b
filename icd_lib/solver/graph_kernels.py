"""Compiled helpers of the starting layouts: contraction, matching, shared neighbours. Single thread."""

import numpy as np
from numba import njit


@njit(cache=True)
def match_heaviest(indptr, indices, data):
    """Label (D,) int64 of a heavy-edge matching in order of degree: each element joins its heaviest free neighbour.

    An edge counts by its weight over the root of both ends' degrees, so that hubs do not swallow everything.
    """
    D = len(indptr) - 1
    degree = np.zeros(D)
    for i in range(D):
        for e in range(indptr[i], indptr[i + 1]):
            degree[i] += data[e]
    label = np.full(D, -1, np.int64)
    count = 0
    for i in np.argsort(degree, kind="mergesort"):
        if label[i] >= 0:
            continue
        best, heaviest = -1, 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if label[j] < 0 and data[e] / np.sqrt(degree[j]) > heaviest:
                best, heaviest = j, data[e] / np.sqrt(degree[j])
        label[i] = count
        if best >= 0:
            label[best] = count
        count += 1
    return label


@njit(cache=True)
def contract(indptr, indices, data, label, count):
    """CSR (indptr, indices, data) of the graph between labels 0..count-1; inner weight is dropped; rows unsorted."""
    D = len(indptr) - 1
    first = np.zeros(count + 1, np.int64)
    for i in range(D):
        first[label[i] + 1] += 1
    for c in range(count):
        first[c + 1] += first[c]
    members, cursor = np.empty(D, np.int64), first[:-1].copy()
    for i in range(D):
        members[cursor[label[i]]] = i
        cursor[label[i]] += 1
    slot = np.full(count, -1, np.int64)
    out_indptr = np.zeros(count + 1, np.int64)
    out_indices, out_data = np.empty(len(indices), np.int32), np.empty(len(indices))
    used = 0
    for c in range(count):
        start = used
        for m in range(first[c], first[c + 1]):
            i = members[m]
            for e in range(indptr[i], indptr[i + 1]):
                other = label[indices[e]]
                if other == c:
                    continue
                if slot[other] < start:
                    slot[other] = used
                    out_indices[used], out_data[used] = other, 0.0
                    used += 1
                out_data[slot[other]] += data[e]
        out_indptr[c + 1] = used
    return out_indptr, out_indices[:used].copy(), out_data[:used].copy()


@njit(cache=True)
def shared_neighbours(indptr, indices, witness):
    """float32 (nnz,): of the neighbours of an edge's poorer end, the share that the other end has too.

    Only elements marked in witness (D,) bool count as neighbours. O(nnz witnesses per element).
    """
    D = len(indptr) - 1
    some = np.zeros(D + 1, np.int64)
    kept = np.empty(len(indices), np.int32)
    used = 0
    for i in range(D):
        for e in range(indptr[i], indptr[i + 1]):
            if witness[indices[e]]:
                kept[used] = indices[e]
                used += 1
        some[i + 1] = used
    share = np.zeros(len(indices), np.float32)
    seen = np.full(D, -1, np.int32)
    # Rows ascend, so row j meets its smaller neighbours in the order in which it stores them.
    cursor = indptr[:-1].copy()
    for i in range(D):
        for e in range(some[i], some[i + 1]):
            seen[kept[e]] = i
        for e in range(cursor[i], indptr[i + 1]):
            j = indices[e]
            common = 0
            for f in range(some[j], some[j + 1]):
                common += seen[kept[f]] == i
            share[e] = common / max(min(some[i + 1] - some[i], some[j + 1] - some[j]), 1)
            share[cursor[j]] = share[e]
            cursor[j] += 1
    return share


@njit(cache=True)
def count_shares(share, bins):
    """Histogram int64 (bins,) of shares in [0, 1]."""
    counts = np.zeros(bins, np.int64)
    for value in share:
        counts[min(int(value * bins), bins - 1)] += 1
    return counts


@njit(cache=True)
def keep_edges(indptr, indices, share, threshold):
    """(indptr, indices) of the edges whose share exceeds the threshold."""
    kept = np.zeros(len(indptr), np.int32)
    out = np.empty(len(indices), np.int32)
    used = 0
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            if share[e] > threshold:
                out[used] = indices[e]
                used += 1
        kept[i + 1] = used
    return kept, out[:used].copy()


@njit(cache=True)
def move_to_communities(indptr, indices, data, inner, resolution, passes):
    """Label (D,) int64 of Louvain's local moving (Blondel et al. 2008), in order of number until nobody moves.

    inner (D,): weight inside each element, counted twice. An element joins the neighbouring community c with the
    largest weight to c less resolution k_i K_c / 2m, where k_i and K_c are degrees. At most `passes` passes.
    """
    D = len(indptr) - 1
    degree = inner.copy()
    for i in range(D):
        for e in range(indptr[i], indptr[i + 1]):
            degree[i] += data[e]
    total = degree.sum()
    label = np.arange(D)
    held = degree.copy()
    toward = np.zeros(D)
    met = np.empty(D, np.int64)
    for _ in range(passes):
        moved = 0
        for i in range(D):
            count = 0
            for e in range(indptr[i], indptr[i + 1]):
                c = label[indices[e]]
                if toward[c] == 0:
                    met[count] = c
                    count += 1
                toward[c] += data[e]
            own = label[i]
            held[own] -= degree[i]
            best, most = own, toward[own] - resolution * degree[i] * held[own] / total
            for m in range(count):
                c = met[m]
                gain = toward[c] - resolution * degree[i] * held[c] / total
                if gain > most * (1 + 1e-12) + 1e-300:
                    best, most = c, gain
            for m in range(count):
                toward[met[m]] = 0.0
            held[best] += degree[i]
            if best != own:
                label[i] = best
                moved += 1
        if moved <= D // 1000:
            break
    return label


@njit(cache=True)
def number_labels(label):
    """Labels renumbered 0.. in order of first appearance, int64 (D,), and their number."""
    seen = np.full(label.max() + 1, -1, np.int64)
    out = np.empty(len(label), np.int64)
    count = 0
    for i in range(len(label)):
        if seen[label[i]] < 0:
            seen[label[i]] = count
            count += 1
        out[i] = seen[label[i]]
    return out, count
