"""Compiled counting of co-accesses: pairs of events' ids into a hash table of edge weights. Single thread, no sorting.

An edge i < j has the key i 2^32 + j; the table is open addressing with linear probing, capacity a power of two, -1 for
a free slot. The sum of an edge is taken in the order of the stream, so it depends neither on how the stream was cut
into chunks nor on the table's capacity.
"""

import numpy as np
from numba import njit

FREE = np.int64(-1)
# Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4) and the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_A, MIX_B = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
# One event alone, or two of a window, draw at most this many pairs (or one for each id, if there are more ids).
MAX_PAIRS = 1 << 20


@njit(cache=True)
def mix(number):
    """SplitMix64: a uint64 that depends on every bit of `number`."""
    z = number * GOLDEN
    z = (z ^ (z >> np.uint64(30))) * MIX_A
    z = (z ^ (z >> np.uint64(27))) * MIX_B
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def shuffle(values, seed):
    """Fisher-Yates in place, the same for equal seeds (uint64) on every machine."""
    for k in range(len(values) - 1, 0, -1):
        other = np.int64(mix(seed + np.uint64(k)) % np.uint64(k + 1))
        values[k], values[other] = values[other], values[k]


@njit(cache=True)
def add_edge(keys, values, a, b, weight):
    """Add weight to the edge a-b; 1 if the edge is new. The table must have a free slot."""
    key = (np.int64(min(a, b)) << 32) | np.int64(max(a, b))
    mask = len(keys) - 1
    at = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(32)) & mask
    while keys[at] != key:
        if keys[at] == FREE:
            keys[at] = key
            values[at] = weight
            return 1
        at = (at + 1) & mask
    values[at] += weight
    return 0


@njit(cache=True)
def rehash(old_keys, old_values, keys, values):
    """Move every edge of one table into another, empty one."""
    for at in range(len(old_keys)):
        if old_keys[at] != FREE:
            key = old_keys[at]
            add_edge(keys, values, key >> 32, key & 0xFFFFFFFF, old_values[at])


@njit(cache=True)
def distinct_ids(ids, offsets, stamp, first_stamp):
    """(ids, offsets) with each event's repeats removed, in order of first access; stamp int64 (D,) < first_stamp."""
    kept = np.empty(len(ids), np.int32)
    bounds = np.zeros(len(offsets), np.int64)
    count = 0
    for e in range(len(offsets) - 1):
        for at in range(offsets[e], offsets[e + 1]):
            if stamp[ids[at]] != first_stamp + e:
                stamp[ids[at]] = first_stamp + e
                kept[count] = ids[at]
                count += 1
        bounds[e + 1] = count
    return kept[:count].copy(), bounds


@njit(cache=True)
def partners(n, m, most):
    """How many partners each of n ids gets among m others, so that no more than MAX_PAIRS pairs are drawn."""
    return max(1, min(m, most, MAX_PAIRS // max(n, 1)))


@njit(cache=True)
def count_pairs(n_here, n_there, most):
    """How many pairs `pair_up` adds at most: for one event when n_there is -1, else for two."""
    if n_there < 0:
        return n_here * (n_here - 1) // 2 if n_here <= most else n_here * partners(n_here, (most - 1) // 2, most)
    large, small = max(n_here, n_there), min(n_here, n_there)
    return large * partners(large, small, most) if small else 0


@njit(cache=True)
def pair_within(ids, weight, most, seed, keys, values):
    """Add all pairs of one event, or, of more than `most` ids, a random circulant graph of the same total weight.

    In it each id is joined to the K that follow it on a random ring: every pair is equally likely to be drawn and
    weighs (n - 1) / 2K times as much, so the expected weight of each pair, and the sum of all, are those of all pairs.
    """
    n, new = len(ids), 0
    if n <= most:
        for a in range(n):
            for b in range(a + 1, n):
                new += add_edge(keys, values, ids[a], ids[b], weight)
        return new
    ring = ids.copy()
    shuffle(ring, seed)
    reach = partners(n, (most - 1) // 2, most)
    share = weight * (n - 1) / (2 * reach)
    for a in range(n):
        for step in range(1, reach + 1):
            new += add_edge(keys, values, ring[a], ring[(a + step) % n], share)
    return new


@njit(cache=True)
def pair_across(here, there, weight, most, seed, keys, values):
    """Add all pairs of two events, or a random part of them of the same expected weight (none of an id with itself)."""
    large, small = (here, there) if len(here) >= len(there) else (there, here)
    n, m, new = len(large), len(small), 0
    if m == 0:
        return 0
    reach = partners(n, m, most)
    if reach < m:
        small = small.copy()
        shuffle(small, seed)
    share = weight * m / reach
    for a in range(n):
        for step in range(reach):
            b = small[(a + step) % m]
            if large[a] != b:
                new += add_edge(keys, values, large[a], b, share)
    return new


@njit(cache=True)
def pair_up(ids, offsets, nbytes, event, lag, window, number, most, keys, values, used, room, forced):
    """Count pairs from (event, lag) on, until all are counted or the table might hold more than `room` edges.

    `forced` counts the first step in any case: the table has the capacity.
    ids, offsets: distinct ids per event; lag 0 pairs an event with itself, lag 1..window-1 with the one so much before
    it. `number` is the number of event 0 in the stream, which seeds what is drawn.
    Returns (event, lag) to go on from and the edges in the table.
    """
    events = len(offsets) - 1
    while event < events:
        here = ids[offsets[event] : offsets[event + 1]]
        while lag < window and lag <= event:
            other = event - lag
            there = ids[offsets[other] : offsets[other + 1]]
            if used + count_pairs(len(here), len(there) if lag else -1, most) > room and not forced:
                return event, lag, used
            forced = False
            weight = min(nbytes[event], nbytes[other])
            seed = mix(np.uint64(number + event)) + np.uint64(lag)
            if weight > 0 and lag == 0:
                used += pair_within(here, weight, most, mix(seed), keys, values)
            elif weight > 0:
                used += pair_across(here, there, weight, most, mix(seed), keys, values)
            lag += 1
        event, lag = event + 1, 0
    return event, lag, used
