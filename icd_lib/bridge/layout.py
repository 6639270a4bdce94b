"""What the bridge tells a compiler of a model's layout: for every weight, which axes lie where in it."""

from collections.abc import Mapping

from torch import nn

from icd_lib.axes.kinds import KINDS, granules
from icd_lib.models.families import family_of, find_adapter

Layout = dict[str, list[dict]]


def layout_of(model: nn.Module, tile: int, pi: Mapping[str, str]) -> Layout:
    """Parameter → [{"axis", "dim", "tile", "width", "pi"}]: the axes in it, their alive width there and π's hash.

    width and tile count entries along `dim`, heads times their size; tile is 1 where elements are single. pi is "" for
    an axis that nobody permuted. A model of no known family has no layout that could be told.
    """
    if family_of(model) is None:
        return {}
    found: Layout = {}
    for axis in find_adapter(model).axes():
        for slot in axis.slots:
            entry = {
                "axis": axis.name,
                "dim": slot.dim,
                "tile": granules(tile)[axis.kind] * slot.block if axis.kind in KINDS else 1,
                "width": axis.size * slot.block * slot.copies,
                "pi": pi.get(axis.name, ""),
            }
            entries = found.setdefault(slot.parameter, [])
            if entry not in entries:
                entries.append(entry)
    return found


def in_words(entry: dict) -> str:
    """One entry for a log.

    >>> in_words({"axis": "ffn.0", "dim": 0, "tile": 16, "width": 992, "pi": ""})
    'ffn.0 along dim 0, 992 alive in tiles of 16'
    """
    return f"{entry['axis']} along dim {entry['dim']}, {entry['width']} alive in tiles of {entry['tile']}"
