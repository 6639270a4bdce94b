"""graph/masked.json: what a mask that came with the model made dead, and what of its zeros cannot leave."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MaskedAxis:
    """One axis: `size` elements, `dead` of them; `kept` and `kept_stored`: left in whole tiles, gathered and as stored.

    zeros: share of the single weights along it that are zero, `left`: of those that stay once the dead are gone. now,
    solved, least: share of tiles that hold anything else then (`codesign.zeros.Zeros`); None where few are zero.
    """

    axis: str
    kind: str
    size: int
    dead: int
    kept: int
    kept_stored: int
    zeros: float
    left: float
    now: float | None = None
    solved: float | None = None
    least: float | None = None


@dataclass(frozen=True)
class Masked:
    """All of masked.json; `tile`: elements that leave together."""

    tile: int
    axes: list[MaskedAxis]
