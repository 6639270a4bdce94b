"""Which matrix gets how many bits under a budget of bytes: a knapsack with one choice for each, solved exactly.

Σ bytes ≤ budget, Σ loss least. Sizes are whole multiples of their greatest common divisor, and dynamic programming over
those takes (matrices × choices × budget) steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

import numpy as np

from icd_lib.errors import TransformError

MOST_UNITS = 1 << 16  # of the budget; above, sizes are rounded up to a coarser unit, and the result keeps the budget


@dataclass(frozen=True)
class Choice:
    """One way to hold a matrix: so many bits to a code, so many bytes in all, and what the network loses by it."""

    bits: int
    bytes: int
    loss: float


def allocate(choices: Mapping[str, list[Choice]], budget: int) -> dict[str, Choice]:
    """The choice of every matrix with the least summed loss among those that take at most `budget` bytes together.

    Raises `TransformError` where even the smallest choices take more.

    >>> two = [Choice(4, 4, 3.0), Choice(8, 8, 1.0)]
    >>> [found.bits for found in allocate({"a": two, "b": [Choice(4, 4, 9.0), Choice(8, 8, 2.0)]}, 12).values()]
    [4, 8]
    """
    least = sum(min(item.bytes for item in items) for items in choices.values())
    if least > budget:
        raise TransformError(
            f"the smallest choice of every matrix takes {least} bytes together, and the budget is {budget}; raise "
            "quantization.mean_bits"
        )
    unit = max(gcd(*(item.bytes for items in choices.values() for item in items)), -(-budget // MOST_UNITS))
    units = _units(choices, unit, budget)
    room = budget // unit
    best, taken = np.zeros(room + 1), []
    for name, items in choices.items():
        rows = np.full((len(items), room + 1), np.inf)
        for place, (item, size) in enumerate(zip(items, units[name], strict=True)):
            if size <= room:
                rows[place, size:] = best[: room + 1 - size] + item.loss
        taken.append(rows.argmin(0).astype(np.uint8))
        best = rows.min(0)
    found, left = {}, room
    for (name, items), chosen in zip(reversed(choices.items()), reversed(taken), strict=True):
        place = int(chosen[left])
        found[name] = items[place]
        left -= units[name][place]
    return {name: found[name] for name in choices}


def _units(choices: Mapping[str, list[Choice]], unit: int, budget: int) -> dict[str, list[int]]:
    """Sizes in units, rounded up; down for the smallest choices where rounding alone would break the budget."""
    up = {name: [-(-item.bytes // unit) for item in items] for name, items in choices.items()}
    if sum(min(sizes) for sizes in up.values()) <= budget // unit:
        return up
    raise TransformError(
        f"a budget of {budget} bytes is too close to the smallest choices to be divided; raise quantization.mean_bits"
    )
