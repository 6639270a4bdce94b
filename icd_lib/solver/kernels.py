"""Compiled passes over the exact objective J: single thread, no reassociation, so the same bits on every run.

Up to a constant J = sum_{i<j} w_ij P(pos_i, pos_j) + spread sum_b K_b^2 + stab #{i: |pos_i - prev_i| > h}, where w is W
scaled to sum_{i<j} w_ij = 1, P(p, q) = table[|p - q|] - mu [block p = block q] is what an edge of weight 1 costs,
K_b is the summed degree of block b, spread = mu gamma / 4 and stab = gamma_s / D (0 without a previous layout).

`problem` is a `Problem` and `layout` a `Layout` of `icd_lib.solver.problem`.
"""

import numpy as np
from numba import njit

# Knuth's MMIX linear congruential generator (TAOCP vol. 2, 3.3.4): the same stream on every platform and version.
MULTIPLIER = np.uint64(6364136223846793005)
INCREMENT = np.uint64(1442695040888963407)


@njit(cache=True)
def next_uniform(state):
    """Next pseudo-random float64 in (0, 1); state is a uint64 array of length 1, advanced in place."""
    state[0] = state[0] * MULTIPLIER + INCREMENT
    return (np.float64(state[0] >> np.uint64(11)) + 0.5) * 2.0**-53


@njit(cache=True)
def sum_rows(indptr, data):
    """Summed weight of every row, float64 (D,)."""
    total = np.zeros(len(indptr) - 1)
    for i in range(len(total)):
        summed = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            summed += data[e]
        total[i] = summed
    return total


@njit(cache=True)
def sum_edges(indptr, indices, data, pos, block, penalty, askew):
    """(sum of w penalty[distance], of w where askew[distance], of w inside a block) over pairs i < j.

    Sums row by row and then over the rows: a fixed order, and rounding that grows with D and not with the edges.
    """
    far, off, inside = 0.0, 0.0, 0.0
    for i in range(len(indptr) - 1):
        p = pos[i]
        row_far, row_askew, row_inside = 0.0, 0.0, 0.0
        for e in range(indptr[i], indptr[i + 1]):
            if indices[e] <= i:
                continue
            q = pos[indices[e]]
            apart = abs(p - q)
            row_far += data[e] * penalty[apart]
            if askew[apart]:
                row_askew += data[e]
            if block[p] == block[q]:
                row_inside += data[e]
        far += row_far
        off += row_askew
        inside += row_inside
    return far, off, inside


@njit(cache=True)
def swap_extra(problem, layout, a, b):
    """The part of a swap's change of J that is not about edges: block degrees and stability. O(1)."""
    block, prev, h = problem.block, problem.prev, problem.h
    p, q = layout.pos[a], layout.pos[b]
    extra = 0.0
    if block[p] != block[q]:
        shift = problem.degree[b] - problem.degree[a]
        held = layout.block_degree
        extra = 2 * problem.spread * shift * (held[block[p]] - held[block[q]] + shift)
    if problem.stab > 0:
        moved = int(abs(q - prev[a]) > h) - int(abs(p - prev[a]) > h)
        moved += int(abs(p - prev[b]) > h) - int(abs(q - prev[b]) > h)
        extra += problem.stab * moved
    return extra


@njit(cache=True)
def move_edges(problem, pos, a, p, q):
    """Change of the edge cost of element a if it alone moved from position p to q. O(deg a)."""
    indices, data, block, table = problem.indices, problem.data, problem.block, problem.table
    first, last = problem.indptr[a], problem.indptr[a + 1]
    # Two sums hide the latency of the additions and, unlike fast-math, fix their order on every processor.
    change, other = 0.0, 0.0
    for e in range(first, last - 1, 2):
        r, s = pos[indices[e]], pos[indices[e + 1]]
        change += data[e] * (table[abs(q - r)] - table[abs(p - r)])
        other += data[e + 1] * (table[abs(q - s)] - table[abs(p - s)])
    if (last - first) % 2:
        r = pos[indices[last - 1]]
        change += data[last - 1] * (table[abs(q - r)] - table[abs(p - r)])
    change += other
    if block[p] != block[q]:
        together = 0.0
        for e in range(first, last):
            beside = block[pos[indices[e]]]
            together += data[e] * (int(beside == block[q]) - int(beside == block[p]))
        change -= problem.mu * together
    return change


@njit(cache=True)
def find_edge(indptr, indices, data, a, b):
    """Weight of the edge a-b, 0 if there is none: binary search in the sorted row of a."""
    low, high = indptr[a], indptr[a + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < b:
            low = middle + 1
        else:
            high = middle
    if low < indptr[a + 1] and indices[low] == b:
        return np.float64(data[low])
    return 0.0


@njit(cache=True)
def swap_delta(problem, layout, a, b):
    """Change of J when elements a != b trade places. O(deg a + deg b)."""
    block = problem.block
    pos = layout.pos
    p, q = pos[a], pos[b]
    delta = move_edges(problem, pos, a, p, q) + move_edges(problem, pos, b, q, p)
    # Both sums let the other element stand still; the edge between the two is as long after the trade as before.
    edge = find_edge(problem.indptr, problem.indices, problem.data, a, b)
    if edge > 0:
        delta += 2 * edge * (problem.table[abs(p - q)] + problem.mu * int(block[p] != block[q]))
    return delta + swap_extra(problem, layout, a, b)


@njit(cache=True)
def apply_swap(problem, layout, a, b):
    """Let elements a and b trade places in the layout."""
    block, pos = problem.block, layout.pos
    p, q = pos[a], pos[b]
    shift = problem.degree[b] - problem.degree[a]
    layout.block_degree[block[p]] += shift
    layout.block_degree[block[q]] -= shift
    pos[a], pos[b] = q, p
    layout.perm[p], layout.perm[q] = b, a


@njit(cache=True)
def descend_swaps(problem, layout, state, near, first, last, tries, margin):
    """For elements first..last-1: trade with one of `tries` partners each time J falls by more than margin.

    A partner lies, four times of five, within `near` positions of one of the element's neighbours, else anywhere.
    Returns the trades made.
    """
    indptr, indices = problem.indptr, problem.indices
    pos, perm = layout.pos, layout.perm
    size = len(pos)
    trades = 0
    for a in range(first, last):
        degree = indptr[a + 1] - indptr[a]
        if degree == 0:
            continue
        for _ in range(tries):
            draw = next_uniform(state)
            if draw < 0.8:
                q = (
                    pos[indices[indptr[a] + int(draw / 0.8 * degree)]]
                    + int(next_uniform(state) * (2 * near + 1))
                    - near
                )
                q = min(max(q, 0), size - 1)
            else:
                q = int(next_uniform(state) * size)
            b = perm[q]
            if a != b and swap_delta(problem, layout, a, b) < -margin:
                apply_swap(problem, layout, a, b)
                trades += 1
    return trades


@njit(cache=True)
def pair_cost(weights, problem, perm):
    """J up to its constant of the layout perm, from dense weights (D, D). O(D^2), for small D."""
    D = len(perm)
    cost = 0.0
    held = np.zeros(problem.block[-1] + 1)
    for p in range(D):
        held[problem.block[p]] += problem.degree[perm[p]]
        if problem.stab > 0:
            cost += problem.stab * int(abs(p - problem.prev[perm[p]]) > problem.h)
        for q in range(p + 1, D):
            together = problem.mu * int(problem.block[p] == problem.block[q])
            cost += weights[perm[p], perm[q]] * (problem.table[q - p] - together)
    for b in range(len(held)):
        cost += problem.spread * held[b] ** 2
    return cost


@njit(cache=True)
def best_of_all(weights, problem, perm):
    """The best of all D! layouts, int64 (D,), from dense weights (D, D); Heap's algorithm (1963), starting at perm."""
    perm = perm.copy()
    best, least = perm.copy(), pair_cost(weights, problem, perm)
    counter = np.zeros(len(perm), np.int64)
    i = 1
    while i < len(perm):
        if counter[i] < i:
            j = 0 if i % 2 == 0 else counter[i]
            perm[i], perm[j] = perm[j], perm[i]
            cost = pair_cost(weights, problem, perm)
            if cost < least:
                least = cost
                best[:] = perm
            counter[i] += 1
            i = 1
        else:
            counter[i] = 0
            i += 1
    return best


@njit(cache=True)
def sorted_products(indptr, weights, prices):
    """(D, kinds): sum of products of every row of `weights` with the first entries of every row of prices."""
    out = np.zeros((len(indptr) - 1, len(prices)))
    for i in range(len(out)):
        for kind in range(len(prices)):
            total = 0.0
            for e in range(indptr[i], indptr[i + 1]):
                total += weights[e] * prices[kind, e - indptr[i]]
            out[i, kind] = total
    return out
