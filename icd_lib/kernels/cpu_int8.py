"""Products with keys and values in int8 on CPUs, compiled: one decoded token's attention reads a byte for a number.

A reader is one row and KV group: `HEADS` queries of `SIZE` dims that read the same pages. A task is some pages of one
reader. Keys have a scale for each channel of a page, which goes into the queries once a page; values have one for each
token, which goes into the token's weights. A row of codes is made float once for all heads.

Scales are float16, normal numbers without sign (icd_lib.models.cache.int8), and read by shifting their bits.
"""

import numpy as np
from numba import njit

from icd_lib.kernels.cpu_math import FAST, SUMS, strip
from icd_lib.kernels.cpu_pool import ITEM, drain, make_kernels

# Argument vector: codes int8 (readers, CAPACITY, PAGE, SIZE), scales float16 (readers, CAPACITY, SIZE or PAGE).
HEADS, SIZE, PAGE, PAGES, CAPACITY, SLOTS, AT_ONCE = range(3, 10)
CODES, SCALES, GIVEN, OUT = range(10, 14)  # GIVEN: queries (readers, HEADS, SIZE), or weights (readers, HEADS, SLOTS)
ARGUMENTS = 14
_EXPONENT = np.int32((127 - 15) << 23)  # float32's bias less float16's
_SHIFT = np.int32(23 - 10)


@njit(**FAST)
def _read_scales(address, count, bits):
    """bits int32 (count,) ← what float32 numbers of these float16 numbers look like."""
    halves = strip(address, np.int16(0), count)
    for i in range(count):
        bits[i] = (np.int32(halves[i]) << _SHIFT) + _EXPONENT


@njit(**SUMS)
def _dot(a, start, b, count, zero):
    total = zero
    for i in range(count):
        total += a[start + i] * b[i]
    return total


@njit(**FAST)
def _pages_of(a, task):
    """(reader, first page, page behind the last) of a task."""
    chunks = (a[PAGES] + a[AT_ONCE] - 1) // a[AT_ONCE]
    first = (task % chunks) * a[AT_ONCE]
    return task // chunks, first, min(a[PAGES], first + a[AT_ONCE])


@njit(**FAST)
def _scores_task(a, task, like):
    """OUT (readers, HEADS, SLOTS): product of each query with the key of each slot."""
    reader, first, last = _pages_of(a, task)
    heads, size, page, slots = a[HEADS], a[SIZE], a[PAGE], a[SLOTS]
    query = strip(a[GIVEN] + reader * heads * size * a[ITEM], like, heads * size)
    out = strip(a[OUT] + reader * heads * slots * a[ITEM], like, heads * slots)
    scaled, row = np.empty(heads * size, dtype=type(like)), np.empty(size, dtype=type(like))
    bits = np.empty(size, dtype=np.int32)
    scales = bits.view(np.float32)
    for number in range(first, last):
        place = reader * a[CAPACITY] + number
        _read_scales(a[SCALES] + 2 * place * size, size, bits)
        for j in range(heads):
            for c in range(size):
                scaled[j * size + c] = query[j * size + c] * scales[c]
        codes = strip(a[CODES] + place * page * size, np.int8(0), page * size)
        for t in range(page):
            for c in range(size):
                row[c] = codes[t * size + c]
            for j in range(heads):
                out[j * slots + number * page + t] = _dot(scaled, j * size, row, size, like)


@njit(**FAST)
def _mix_task(a, task, like):
    """OUT (tasks, HEADS, SIZE): sum of the values of the task's pages by the slots' weights."""
    reader, first, last = _pages_of(a, task)
    heads, size, page, slots = a[HEADS], a[SIZE], a[PAGE], a[SLOTS]
    weights = strip(a[GIVEN] + reader * heads * slots * a[ITEM], like, heads * slots)
    total, row = np.zeros(heads * size, dtype=type(like)), np.empty(size, dtype=type(like))
    bits = np.empty(page, dtype=np.int32)
    scales = bits.view(np.float32)
    for number in range(first, last):
        place = reader * a[CAPACITY] + number
        _read_scales(a[SCALES] + 2 * place * page, page, bits)
        codes = strip(a[CODES] + place * page * size, np.int8(0), page * size)
        for t in range(page):
            for c in range(size):
                row[c] = codes[t * size + c]
            for j in range(heads):
                weight = weights[j * slots + number * page + t] * scales[t]
                for c in range(size):
                    total[j * size + c] += weight * row[c]
    strip(a[OUT] + task * heads * size * a[ITEM], like, heads * size)[:] = total


def _entries(zero, stamp: int) -> tuple:
    def scores(pointer):
        drain(pointer, ARGUMENTS, _scores_task, zero, stamp)

    def mix(pointer):
        drain(pointer, ARGUMENTS, _mix_task, zero, stamp)

    return scores, mix


scores, mix = make_kernels(_entries)
