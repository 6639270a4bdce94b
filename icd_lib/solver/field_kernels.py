"""Compiled annealing of single elements with prices kept in fields: a proposal costs O(1), only a trade costs edges.

The positions of a window are cut into T columns. F[i, t] is what element i's edges cost if i lay in column t, the price
of two columns being the mean over their positions; A[i, r] is the weight of i's edges to positions r (mod v). A trade
updates both for the neighbours that lie in the window; those outside stand still. float32: every update is elementwise,
so no sum depends on an order of evaluation.
"""

import numpy as np
from numba import njit

from icd_lib.solver.kernels import find_edge, next_uniform

# Four proposals of five lie near a neighbour of the element.
NEAR_SHARE = 0.8
PROPOSALS_PER_ELEMENT = 2
ELEMENTS_PER_HEAT = 32


@njit(cache=True)
def fill_fields(problem, pos, ids, first, source, price, F, A, local, window):
    """Fields of the elements ids (ascending) and their CSR among themselves.

    source (D,): row of price (S, T) for a position; A (n, v); local: int32 (D,) scratch; window = (indptr, indices,
    data), filled: edges to elements inside, numbered as in ids. O(edges T).
    """
    n, T, v = len(ids), F.shape[1], A.shape[1]
    indptr, indices, data = window
    for i in range(n):
        local[ids[i]] = i
    count = 0
    indptr[0] = 0
    for i in range(n):
        a = ids[i]
        F[i] = 0
        A[i] = 0
        for e in range(problem.indptr[a], problem.indptr[a + 1]):
            j = problem.indices[e]
            q = pos[j]
            w = np.float32(problem.data[e])
            row = price[source[q]]
            for t in range(T):
                F[i, t] += w * row[t]
            A[i, q % v] += w
            if first <= q < first + n:
                indices[count] = local[j]
                data[count] = w
                count += 1
        indptr[i + 1] = count


@njit(cache=True)
def update_fields(window, F, A, step, changes, a, old, new, sign):
    """Element a's neighbours learn that it moved: `step` (T,) for their F if it `changes`, residue old to new for A."""
    indptr, indices, data = window
    for e in range(indptr[a], indptr[a + 1]):
        j, w = indices[e], data[e]
        if changes:
            signed = sign * w
            for t in range(len(step)):
                F[j, t] += signed * step[t]
        A[j, old] -= w
        A[j, new] += w


@njit(cache=True)
def anneal_fields(scene, window, fields, place, state, near, done, until, total, hot, cold):
    """Proposals until `until` units of work out of `total`; T falls geometrically from hot to cold, 0 descends.

    scene = (price (T, T) of two columns, column and residue (n,) of a position, block (T,) of a column, degree (n,),
    live: elements with edges, previous (n,) positions, (beta, spread, stab, h), work per neighbour of a trade);
    fields = (F, A); place = (pos (n,), perm (n,), block_degree (k,)). A unit of work is one proposal.
    Returns (work done, proposals, trades).
    """
    price, column, residue, block, degree, live, previous, scalars, toll = scene
    beta, spread, stab, h = scalars
    indptr, indices, data = window
    F, A = fields
    pos, perm, held = place
    n, T = len(pos), F.shape[1]
    askew = np.float32(beta)
    step = np.zeros(T, np.float32)
    proposals, trades = 0, 0
    while done < until:
        heat = hot * (cold / hot) ** (done / total) if hot > 0 else 0.0
        for _ in range(ELEMENTS_PER_HEAT):
            a = live[int(next_uniform(state) * len(live))]
            start, edges = indptr[a], indptr[a + 1] - indptr[a]
            for _ in range(PROPOSALS_PER_ELEMENT):
                done += 1
                proposals += 1
                draw = next_uniform(state)
                if draw < NEAR_SHARE and edges > 0:
                    q = pos[indices[start + int(draw / NEAR_SHARE * edges)]]
                    q += int(next_uniform(state) * (2 * near + 1)) - near
                    q = min(max(q, 0), n - 1)
                else:
                    q = int(next_uniform(state) * n)
                b = perm[q]
                if a == b:
                    continue
                p = pos[a]
                t, u = column[p], column[q]
                r, s = residue[p], residue[q]
                change = np.float64(
                    F[a, u] - F[a, t] + F[b, t] - F[b, u] + askew * (A[a, r] - A[a, s] + A[b, s] - A[b, r])
                )
                shift = 0.0
                if block[t] != block[u]:
                    shift = degree[b] - degree[a]
                    change += 2 * spread * shift * (held[block[t]] - held[block[u]] + shift)
                if stab > 0:
                    moved = int(abs(q - previous[a]) > h) - int(abs(p - previous[a]) > h)
                    moved += int(abs(p - previous[b]) > h) - int(abs(q - previous[b]) > h)
                    change += stab * moved
                if change >= 0:
                    if change >= 40 * heat:
                        continue
                    change += heat * np.log(next_uniform(state))
                    if change >= 0:
                        continue
                # Both fields let the other element stand still; the edge between the two keeps its length.
                edge = find_edge(indptr, indices, data, a, b)
                if edge > 0:
                    longer = np.float64(2 * price[t, u] - price[t, t] - price[u, u]) + 2 * beta * int(r != s)
                    if change + edge * longer >= 0:
                        continue
                trades += 1
                done += toll * (edges + indptr[b + 1] - indptr[b])
                held[block[t]] += shift
                held[block[u]] -= shift
                pos[a], pos[b] = q, p
                perm[p], perm[q] = b, a
                for c in range(T):
                    step[c] = price[u, c] - price[t, c]
                update_fields(window, F, A, step, t != u, a, r, s, np.float32(1))
                update_fields(window, F, A, step, t != u, b, s, r, np.float32(-1))
    return done, proposals, trades
