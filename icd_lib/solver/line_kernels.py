"""Compiled moves of whole lines (runs of neighbouring elements) on the dense quotient graph.

X (n, n): weight between the lines that lie at two slots, P (n, n): price of two slots per unit of weight, share
(n, k): part of a slot's positions in each block, degree (n,) of the line at each slot, held (k,): degree of each block,
S (n, n): what a line pays at a slot for having moved far, (0, 0) if nothing. X and P hold whole numbers so small that
every sum is exact: the compiler may add in any order and the result stays the same bits.
"""

import numpy as np
from numba import njit

from icd_lib.solver.kernels import next_uniform

ANY_ORDER = {"reassoc", "contract", "nsz"}


@njit(cache=True)
def sum_lines(indptr, indices, data, line, n):
    """Weight between lines, float64 (n, n); line (D,) is the line of each element. Both triangles and the diagonal."""
    X = np.zeros((n, n))
    for i in range(len(indptr) - 1):
        row = X[line[i]]
        for e in range(indptr[i], indptr[i + 1]):
            row[line[indices[e]]] += data[e]
    return X


@njit(cache=True)
def price_stability(perm, prev, h, price, length, n):
    """S (n, n): `price` times the elements of each line that lie more than h from prev when the line is at a slot."""
    S = np.zeros((n, n))
    for line in range(n):
        for slot in range(n):
            for u in range(length):
                S[line, slot] += price * int(abs(slot * length + u - prev[perm[line * length + u]]) > h)
    return S


@njit(cache=True, fastmath=ANY_ORDER)
def trade_edges(X, P, p, q):
    """Change of the price of the edges when the lines at slots p != q trade places. O(n)."""
    change = 0.0
    for c in range(X.shape[0]):
        change += (X[p, c] - X[q, c]) * (P[q, c] - P[p, c])
    # The sum met the two slots themselves; the edge between them keeps its length, edges inside a line move with it.
    between = X[p, q]
    change -= (X[p, p] - between) * (P[q, p] - P[p, p]) + (between - X[q, q]) * (P[q, q] - P[p, q])
    return change + 0.5 * (X[p, p] - X[q, q]) * (P[q, q] - P[p, p])


@njit(cache=True)
def trade_lines(X, order, degree, p, q):
    """Let the lines at slots p and q trade places. O(n)."""
    order[p], order[q] = order[q], order[p]
    degree[p], degree[q] = degree[q], degree[p]
    for c in range(X.shape[0]):
        X[p, c], X[q, c] = X[q, c], X[p, c]
    for c in range(X.shape[0]):
        X[c, p], X[c, q] = X[c, q], X[c, p]


@njit(cache=True)
def trade_spread(share, degree, held, spread, p, q):
    """Change of spread sum_b held_b^2 when the lines at slots p and q trade places."""
    shift = degree[q] - degree[p]
    change = 0.0
    for b in range(share.shape[1]):
        gained = (share[p, b] - share[q, b]) * shift
        change += spread * gained * (2 * held[b] + gained)
    return change


@njit(cache=True)
def trade_stability(S, order, p, q):
    """Change of the price of having moved far when the lines at slots p and q trade places."""
    if len(S) == 0:
        return 0.0
    a, b = order[p], order[q]
    return S[a, q] - S[a, p] + S[b, p] - S[b, q]


@njit(cache=True)
def sample_trades(X, P, share, S, order, degree, held, spread, state, count):
    """Change of the price that each of `count` random trades would make, float64 (count,)."""
    n = len(degree)
    found = np.zeros(count)
    for i in range(count):
        p, q = int(next_uniform(state) * n), int(next_uniform(state) * n)
        if p != q:
            change = trade_edges(X, P, p, q) + trade_spread(share, degree, held, spread, p, q)
            found[i] = change + trade_stability(S, order, p, q)
    return found


@njit(cache=True, fastmath=ANY_ORDER)
def span_edges(X, P, first, source):
    """Price of all edges of slots first.. when slot first + u holds the line now at source[u]. O(len(source) n)."""
    n, m = X.shape[0], len(source)
    last = first + m
    price = 0.0
    for u in range(m):
        s, p = source[u], first + u
        for c in range(first):
            price += X[s, c] * P[p, c]
        for c in range(last, n):
            price += X[s, c] * P[p, c]
        for w in range(u):
            price += X[s, source[w]] * P[p, first + w]
        price += 0.5 * X[s, s] * P[p, p]
    return price


@njit(cache=True)
def is_taken(change, heat, state):
    """Metropolis (1953): a fall always, a rise with probability exp(-change / heat)."""
    return change < 0 or (change < 40 * heat and next_uniform(state) < np.exp(-change / heat))


@njit(cache=True)
def anneal_lines(X, P, share, S, order, degree, held, spread, state, first, last, total, hot, cold, run_share):
    """Proposals first..last-1 out of total; T falls geometrically from hot to cold.

    A proposal trades two random lines, or, a share `run_share` of them, moves blocks: a run of lines is reversed, or
    trades places with the run after it.
    """
    n, k = share.shape
    source, still = np.empty(n, np.int64), np.empty(n, np.int64)
    gained = np.empty(k)
    for proposal in range(first, last):
        heat = hot * (cold / hot) ** (proposal / total)
        if next_uniform(state) < run_share:
            span, low = propose_run(state, n, source, still)
            change = span_edges(X, P, low, source[:span]) - span_edges(X, P, low, still[:span])
            if len(S):
                for u in range(span):
                    change += S[order[source[u]], low + u] - S[order[low + u], low + u]
            for b in range(k):
                gained[b] = 0.0
                for u in range(span):
                    gained[b] += share[low + u, b] * (degree[source[u]] - degree[low + u])
                change += spread * gained[b] * (2 * held[b] + gained[b])
            if is_taken(change, heat, state):
                for b in range(k):
                    held[b] += gained[b]
                shuffle_span(X, order, degree, low, source[:span])
        else:
            p, q = int(next_uniform(state) * n), int(next_uniform(state) * n)
            if p == q:
                continue
            change = trade_edges(X, P, p, q) + trade_spread(share, degree, held, spread, p, q)
            change += trade_stability(S, order, p, q)
            if is_taken(change, heat, state):
                shift = degree[q] - degree[p]
                for b in range(k):
                    held[b] += (share[p, b] - share[q, b]) * shift
                trade_lines(X, order, degree, p, q)


@njit(cache=True)
def propose_run(state, n, source, still):
    """(span, low): slot low + u, u < span, gets the line of slot source[u]; still[u] = low + u.

    Lengths are spread evenly over their logarithm; one time of two the span is reversed, else it is rotated.
    """
    span = min(int(2 * (n / 2) ** next_uniform(state)), n)
    low = int(next_uniform(state) * (n - span + 1))
    turn = int((2 * next_uniform(state) - 1) * span)
    for u in range(span):
        still[u] = low + u
        source[u] = low + span - 1 - u if turn <= 0 else low + (u + turn) % span
    return span, low


@njit(cache=True)
def shuffle_span(X, order, degree, first, source):
    """Put the line now at source[u] into slot first + u. O(len(source) n)."""
    m, n = len(source), X.shape[0]
    lines, held = np.empty(m, np.int64), np.empty(m)
    for u in range(m):
        lines[u], held[u] = order[source[u]], degree[source[u]]
    for u in range(m):
        order[first + u], degree[first + u] = lines[u], held[u]
    for c in range(n):
        for u in range(m):
            held[u] = X[source[u], c]
        for u in range(m):
            X[first + u, c] = held[u]
    for c in range(n):
        for u in range(m):
            held[u] = X[c, source[u]]
        for u in range(m):
            X[c, first + u] = held[u]
