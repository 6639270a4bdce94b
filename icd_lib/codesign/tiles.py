"""Axes that cannot be made smaller: kinds that a model does not have, and widths of no whole number of tiles."""

from collections.abc import Iterable

from icd_lib.axes.kinds import KINDS
from icd_lib.codesign.options import Settings
from icd_lib.errors import ConfigError
from icd_lib.models.adapter import Adapter


def check_axes(adapter: Adapter, settings: Settings) -> None:
    """Raise `ConfigError` where the model has none of the kinds of axes that are to be pruned."""
    kinds = {item.kind: None for item in adapter.prunable()}
    if not kinds.keys() & set(settings.axes):
        raise ConfigError(
            f"axes (transform.axes) takes kinds that {type(adapter.model).__name__} has, {', '.join(kinds)}; "
            f"got {', '.join(settings.axes)}, so nothing would be pruned"
        )


def unfit_axes(adapter: Adapter, settings: Settings, mode: str) -> list[str]:
    """What is to be said of such axes, one line for those of one kind and width: which, why, and the cure.

    linear removes whole tiles of a layout, so the width has to be some of them; the others only keep widths of whole
    tiles, so it has to be more than one.
    """
    sizes: dict[tuple[str, int], list[str]] = {}
    for item in adapter.prunable():
        if item.kind in settings.axes and not _fits(item.elements, settings.tiles[item.kind], mode):
            sizes.setdefault((item.kind, item.elements), []).append(item.axis)
    return [_line(kind, size, axes, settings.tile, mode) for (kind, size), axes in sizes.items()]


def _fits(size: int, tile: int, mode: str) -> bool:
    return tile == 1 or (size > tile and (mode != "linear" or size % tile == 0))


def _line(kind: str, size: int, axes: list[str], tile: int, mode: str) -> str:
    one = len(axes) == 1
    why = f"no more than one tile of {tile}" if size <= tile else f"no whole number of tiles of {tile}"
    return (
        f"{'axis' if one else 'axes'} {_listed(axes)}: {size} {KINDS[kind].words} are {why}, so {mode} leaves "
        f"{'it as it is' if one else 'them as they are'}; set tile (transform.tile) to {fitting_tile(size, tile)}, "
        f"which divides {size}"
    )


def _listed(axes: Iterable[str], most: int = 3) -> str:
    names = [repr(axis) for axis in axes]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def fitting_tile(size: int, tile: int) -> int:
    """The largest tile, not larger than `tile`, of which `size` has at least two.

    >>> fitting_tile(100, 16), fitting_tile(7, 16)
    (10, 1)
    """
    return max(part for part in range(1, min(tile, max(size - 1, 1)) + 1) if size % part == 0)
