"""Compiled reading of the common shape of trace lines; what it does not know it leaves to `trace_lines`."""

import numpy as np
from numba import njit

NEWLINE, SPACE, TAB, RETURN, QUOTE, COMMA, COLON = 10, 32, 9, 13, 34, 44, 58
OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT, ZERO, NINE, DOT = 91, 93, 123, 125, 48, 57, 46
BACKSLASH, TILDE = 92, 126
KEY_T, KEY_IDS, KEY_BYTES = 1, 2, 4
EVENTS, TRIPLES = 0, 1
# Decimals of at most 15 digits and powers of ten up to 22 are exact in float64, so one division rounds correctly
# (Clinger, "How to read floating point numbers accurately", PLDI 1990).
POWERS = 10.0 ** np.arange(23)


@njit(cache=True)
def skip_blanks(text, at):
    """First position from `at` on that is no blank; every line ends in a newline, which stops it."""
    while text[at] == SPACE or text[at] == TAB or text[at] == RETURN:
        at += 1
    return at


@njit(cache=True)
def read_integer(text, at):
    """(value, next position) of an integer of at most 10 digits in JSON's spelling, or (-1, at)."""
    first = at
    value = np.int64(0)
    while ZERO <= text[at] <= NINE and at - first < 11:
        value = value * 10 + (text[at] - ZERO)
        at += 1
    if at == first or at - first > 10 or (text[first] == ZERO and at - first > 1):
        return np.int64(-1), first
    return value, at


@njit(cache=True)
def read_number(text, at):
    """(value, next position) of a decimal >= 0 of at most 15 digits without exponent, or (-1.0, at)."""
    first = at
    value, digits, decimals = np.int64(0), 0, 0
    while ZERO <= text[at] <= NINE and digits < 16:
        value = value * 10 + (text[at] - ZERO)
        digits += 1
        at += 1
    if digits == 0 or (text[first] == ZERO and digits > 1):
        return -1.0, first
    if text[at] == DOT:
        at += 1
        while ZERO <= text[at] <= NINE and digits < 16:
            value = value * 10 + (text[at] - ZERO)
            digits += 1
            decimals += 1
            at += 1
        if decimals == 0:
            return -1.0, first
    if digits > 15 or text[at] == 69 or text[at] == 101:  # E, e
        return -1.0, first
    return np.float64(value) / POWERS[decimals], at


@njit(cache=True)
def skip_number(text, at):
    """Position after a decimal >= 0 without exponent, which may be long (nanoseconds), or `at`."""
    first = at
    while ZERO <= text[at] <= NINE and at - first < 50:
        at += 1
    if at == first or (text[first] == ZERO and at - first > 1):
        return first
    if text[at] == DOT:
        point = at
        at += 1
        while ZERO <= text[at] <= NINE and at - point < 50:
            at += 1
        if at == point + 1:
            return first
    return at


@njit(cache=True)
def skip_string(text, at):
    """Position after a string of printable ASCII without escapes, or `at`."""
    if text[at] != QUOTE:
        return at
    end = at + 1
    while SPACE <= text[end] <= TILDE and text[end] != QUOTE and text[end] != BACKSLASH:
        end += 1
    return end + 1 if text[end] == QUOTE else at


@njit(cache=True)
def read_key(text, at):
    """(which key, position after its closing quote): "t", "ids", "bytes", or 0 for another; position `at` if none."""
    if text[at] != QUOTE:
        return 0, at
    if text[at + 1] == 116 and text[at + 2] == QUOTE:
        return KEY_T, at + 3
    if text[at + 1] == 105 and text[at + 2] == 100 and text[at + 3] == 115 and text[at + 4] == QUOTE:
        return KEY_IDS, at + 5
    if (
        text[at + 1] == 98
        and text[at + 2] == 121
        and text[at + 3] == 116
        and text[at + 4] == 101
        and text[at + 5] == 115
        and text[at + 6] == QUOTE
    ):
        return KEY_BYTES, at + 7
    return 0, skip_string(text, at)


@njit(cache=True)
def read_list(text, at, limit, ids, count):
    """(ids so far, next position) after a list of integers below `limit`; (-1, at) if it is anything else."""
    if text[at] != OPEN_LIST:
        return -1, at
    at = skip_blanks(text, at + 1)
    if text[at] == CLOSE_LIST:
        return count, at + 1
    while True:
        value, at = read_integer(text, skip_blanks(text, at))
        if value < 0 or value >= limit:
            return -1, at
        ids[count] = value
        count += 1
        at = skip_blanks(text, at)
        if text[at] == CLOSE_LIST:
            return count, at + 1
        if text[at] != COMMA:
            return -1, at
        at += 1


@njit(cache=True)
def read_event(text, at, limit, ids, count):
    """(ids so far, bytes, position of the newline) of one event, each key once; count -1 if it is anything else."""
    nbytes, seen = 0.0, 0
    at = skip_blanks(text, at)
    if text[at] != OPEN_OBJECT:
        return -1, nbytes, at
    while True:
        start = skip_blanks(text, at + 1)
        key, at = read_key(text, start)
        if at == start or seen & key:
            return -1, nbytes, at
        at = skip_blanks(text, at)
        if text[at] != COLON:
            return -1, nbytes, at
        seen |= key
        at = skip_blanks(text, at + 1)
        if key == KEY_IDS:
            count, at = read_list(text, at, limit, ids, count)
            if count < 0:
                return -1, nbytes, at
        elif key == KEY_BYTES:
            nbytes, at = read_number(text, at)
            if nbytes < 0:
                return -1, nbytes, at
        else:
            after = skip_number(text, at)
            if after == at and key == 0:
                after = skip_string(text, at)
            if after == at:
                return -1, nbytes, at
            at = after
        at = skip_blanks(text, at)
        if text[at] == CLOSE_OBJECT:
            at = skip_blanks(text, at + 1)
            both = KEY_IDS | KEY_BYTES
            return (count if text[at] == NEWLINE and seen & both == both else -1), nbytes, at
        if text[at] != COMMA:
            return -1, nbytes, at


@njit(cache=True)
def read_triple(text, at, limit, ids, count):
    """As `read_event`, of `i,j,weight`."""
    for k in range(2):
        value, at = read_integer(text, skip_blanks(text, at))
        at = skip_blanks(text, at)
        if value < 0 or value >= limit or text[at] != COMMA:
            return -1, 0.0, at
        ids[count + k] = value
        at += 1
    weight, at = read_number(text, skip_blanks(text, at))
    at = skip_blanks(text, at)
    return (count + 2 if weight >= 0 and text[at] == NEWLINE else -1), weight, at


@njit(cache=True)
def read_lines(text, at, kind, limit, ids, offsets, nbytes, events):
    """(position, events, lines) after reading lines from `at` until the text ends or a line is not of the common shape.

    text uint8 (n,), ending in a newline; ids, offsets, nbytes have room for all of it and hold `events` events already.
    """
    lines = 0
    while at < len(text):
        blank = skip_blanks(text, at)
        if text[blank] == NEWLINE:
            at = blank + 1
            lines += 1
            continue
        count = offsets[events]
        if kind == EVENTS:
            count, weight, end = read_event(text, at, limit, ids, count)
        else:
            count, weight, end = read_triple(text, at, limit, ids, count)
        if count < 0:
            break
        events += 1
        offsets[events] = count
        nbytes[events - 1] = weight
        at = end + 1
        lines += 1
    return at, events, lines
