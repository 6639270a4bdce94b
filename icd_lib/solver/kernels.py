"""Compiled moves on the exact objective J: single thread, no reassociation, so the same bits on every run.

Up to a constant J = sum_{i<j} w_ij P(pos_i, pos_j) + spread sum_b K_b^2 + stab #{i: |pos_i - prev_i| > h}, where w is W
scaled to sum_{i<j} w_ij = 1, P(p, q) = table[|p - q|] - mu [block p = block q] is what an edge of weight 1 costs,
K_b is the summed degree of block b, spread = mu gamma / 4 and stab = gamma_s / D (0 without a previous layout).

problem = (indptr, indices, data: CSR of w; degree (D,); block (D,) of a position; table (D,); prev (D,) positions;
           scalars (4,) = mu, spread, stab, h);  layout = (pos (D,), perm (D,) its inverse, block_degree (k,)).
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
def swap_extra(problem, layout, a, b):
    """The part of a swap's change of J that is not about edges: block degrees and stability. O(1)."""
    _, _, _, degree, block, _, prev, scalars = problem
    pos, _, block_degree = layout
    p, q = pos[a], pos[b]
    extra = 0.0
    if block[p] != block[q]:
        shift = degree[b] - degree[a]
        extra = 2 * scalars[1] * shift * (block_degree[block[p]] - block_degree[block[q]] + shift)
    if scalars[2] > 0:
        h = scalars[3]
        moved = int(abs(q - prev[a]) > h) - int(abs(p - prev[a]) > h)
        moved += int(abs(p - prev[b]) > h) - int(abs(q - prev[b]) > h)
        extra += scalars[2] * moved
    return extra


@njit(cache=True)
def move_edges(problem, pos, a, p, q):
    """Change of the edge cost of element a if it alone moved from position p to q. O(deg a)."""
    indptr, indices, data, _, block, table, _, scalars = problem
    first, last = indptr[a], indptr[a + 1]
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
        for e in range(indptr[a], indptr[a + 1]):
            beside = block[pos[indices[e]]]
            together += data[e] * (int(beside == block[q]) - int(beside == block[p]))
        change -= scalars[0] * together
    return change


@njit(cache=True)
def find_edge(problem, a, b):
    """Weight of the edge a-b, 0 if there is none: binary search in the sorted row of a."""
    indptr, indices, data = problem[0], problem[1], problem[2]
    low, high = indptr[a], indptr[a + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < b:
            low = middle + 1
        else:
            high = middle
    if low < indptr[a + 1] and indices[low] == b:
        return data[low]
    return 0.0


@njit(cache=True)
def swap_delta(problem, layout, a, b):
    """Change of J when elements a != b trade places. O(deg a + deg b)."""
    block, table, mu = problem[4], problem[5], problem[7][0]
    pos = layout[0]
    p, q = pos[a], pos[b]
    delta = move_edges(problem, pos, a, p, q) + move_edges(problem, pos, b, q, p)
    # Both sums let the other element stand still; the edge between the two is as long after the trade as before.
    edge = find_edge(problem, a, b)
    if edge > 0:
        delta += 2 * edge * (table[abs(p - q)] + mu * int(block[p] != block[q]))
    return delta + swap_extra(problem, layout, a, b)


@njit(cache=True)
def apply_swap(problem, layout, a, b):
    """Let elements a and b trade places in the layout."""
    degree, block = problem[3], problem[4]
    pos, perm, block_degree = layout
    p, q = pos[a], pos[b]
    shift = degree[b] - degree[a]
    block_degree[block[p]] += shift
    block_degree[block[q]] -= shift
    pos[a], pos[b] = q, p
    perm[p], perm[q] = b, a


@njit(cache=True)
def swap_tiles(problem, layout, g, s, t):
    """Let the elements of whole tiles s and t trade places, in order; returns nothing, undone by the same call."""
    perm = layout[1]
    for offset in range(g):
        apply_swap(problem, layout, perm[s * g + offset], perm[t * g + offset])


@njit(cache=True)
def tiles_cost(problem, layout, g, s, t):
    """Every part of J that a trade of tiles s and t can change."""
    indptr, indices, data, _, block, table, prev, scalars = problem
    pos, perm, block_degree = layout
    cost = 0.0
    for tile in (s, t):
        for p in range(tile * g, tile * g + g):
            a = perm[p]
            for e in range(indptr[a], indptr[a + 1]):
                r = pos[indices[e]]
                edge = data[e] * (table[abs(p - r)] - scalars[0] * int(block[p] == block[r]))
                # An edge between two moving elements is met from both of its ends.
                cost += 0.5 * edge if (r // g == s or r // g == t) else edge
            if scalars[2] > 0:
                cost += scalars[2] * int(abs(p - prev[a]) > scalars[3])
    for b in range(len(block_degree)):
        cost += scalars[1] * block_degree[b] ** 2
    return cost


@njit(cache=True)
def descend_tiles(problem, layout, g, first, last, margin):
    """For tiles first..last-1: trade with every later tile where J falls by more than margin. Returns trades made."""
    tiles = len(layout[0]) // g
    trades = 0
    for s in range(first, min(last, tiles)):
        for t in range(s + 1, tiles):
            before = tiles_cost(problem, layout, g, s, t)
            swap_tiles(problem, layout, g, s, t)
            if tiles_cost(problem, layout, g, s, t) < before - margin:
                trades += 1
            else:
                swap_tiles(problem, layout, g, s, t)
    return trades


@njit(cache=True)
def propose_partner(problem, layout, state, near, a):
    """A partner for element a: half of the time anybody, else who lies within `near` of one of a's neighbours."""
    indptr, indices = problem[0], problem[1]
    pos, perm, _ = layout
    size = len(pos)
    degree = indptr[a + 1] - indptr[a]
    draw = next_uniform(state)
    if degree == 0 or draw < 0.5:
        return perm[int(next_uniform(state) * size)]
    neighbour = indices[indptr[a] + int((2 * draw - 1) * degree)]
    q = pos[neighbour] + int(next_uniform(state) * (2 * near + 1)) - near
    return perm[min(max(q, 0), size - 1)]


@njit(cache=True)
def search_swaps(problem, layout, state, near, first, last, total, hot, cold, margin):
    """Simulated annealing of proposals first..last-1 out of total; T falls geometrically from hot to cold.

    A trade is made when its change of J < -T log(u), u uniform in (0, 1) (Metropolis et al. 1953); with hot = 0
    only when J falls by more than margin. Returns trades made.
    """
    size = len(layout[0])
    trades = 0
    for proposal in range(first, last):
        a = int(next_uniform(state) * size)
        b = propose_partner(problem, layout, state, near, a)
        bound = -margin
        if hot > 0:
            bound -= hot * (cold / hot) ** (proposal / total) * np.log(next_uniform(state))
        if a != b and swap_delta(problem, layout, a, b) < bound:
            apply_swap(problem, layout, a, b)
            trades += 1
    return trades
