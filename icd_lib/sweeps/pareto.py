"""Which points no other point beats in everything that counts."""

import math
from collections.abc import Sequence


def frontier(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether no other pair is at most as large in both and smaller in one; of equal pairs all stay. O(n log n).

    >>> frontier([(1, 3), (2, 2), (2, 3), (3, 1), (1, 3)])
    [True, True, False, True, True]

    ValueError on a number that is not finite: what was not measured is no point.
    """
    if not all(math.isfinite(number) for pair in costs for number in pair):
        raise ValueError("a cost is not finite")
    on, least, last = [False] * len(costs), math.inf, (math.nan, math.nan)
    for place in sorted(range(len(costs)), key=lambda i: costs[i]):
        pair = costs[place]
        if pair[1] < least or pair == last:
            on[place], least, last = True, pair[1], pair
    return on
