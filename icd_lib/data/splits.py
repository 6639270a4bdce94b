"""Splits that share no text: items with an equal normalised text in any view always land in the same split."""

import re

import numpy as np

from icd_lib.errors import ConfigError

_NOT_WORD = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Lower case, with every run of non-word characters as one space: the form in which two texts count as equal.

    >>> normalise("In the beginning, God --")
    'in the beginning god'
    """
    return _NOT_WORD.sub(" ", text.lower()).strip()


def group_by_text(*views: list[str]) -> np.ndarray:
    """Group of each item, (n,) int64: items that share a normalised text in any view are one group (union-find).

    The id is the lowest item index of the group.

    >>> group_by_text(["a", "b", "c", "B!"], ["x", "y", "x", "z"])
    array([0, 1, 0, 1])
    """
    parent = list(range(len(views[0])))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_item: dict[str, int] = {}
    for view in views:
        for i, text in enumerate(view):
            j = first_item.setdefault(normalise(text), i)
            low, high = sorted((find(i), find(j)))
            parent[high] = low
    return np.array([find(i) for i in range(len(parent))], dtype=np.int64)


def split_groups(groups: np.ndarray, sizes: dict[str, int], rest: str, seed: int) -> dict[str, np.ndarray]:
    """Deal whole groups, in seeded random order, into splits of exactly `sizes` items; `rest` takes what remains.

    Returns split name -> sorted item indices (int64). Raises `ConfigError` when the sizes do not fit the data.
    """
    wanted, available = sum(sizes.values()), len(groups)
    if min(sizes.values(), default=0) < 0 or wanted >= available:
        raise ConfigError(
            f"the splits {sizes} need {wanted} items and leave some for '{rest}', but the data has {available}; "
            "lower data.test_items or data.validation_items"
        )
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    members = np.split(order, starts[1:])
    left = dict(sizes)
    dealt: dict[str, list[np.ndarray]] = {name: [] for name in (*sizes, rest)}
    for g in np.random.default_rng(seed).permutation(len(members)):
        size = len(members[g])
        name = next((n for n, room in left.items() if room >= size), rest)
        dealt[name].append(members[g])
        if name != rest:
            left[name] -= size
    if any(left.values()):
        raise ConfigError(f"groups of equal texts cannot fill the splits {sizes} exactly: {left} items are missing")
    return {name: np.sort(np.concatenate([np.empty(0, np.int64), *parts])) for name, parts in dealt.items()}
