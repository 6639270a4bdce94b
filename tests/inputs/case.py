"""One input from the field: what it is, how it reaches us, and what must happen."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from icd_lib.errors import IcdError

# How an input reaches us; the order of the groups in USAGE.
DOORS = ("model", "calibration", "quality", "argument", "checkpoint", "scenario", "machine")


@dataclass(frozen=True)
class Ground:
    """Where a case runs: an empty folder, and a tiny model of a family with its inputs (float64, padded rows)."""

    folder: Path
    family: str
    model: nn.Module
    inputs: dict


@dataclass(frozen=True)
class Case:
    """`run(ground)` does what a user would do with the input.

    what: the input in words, as USAGE names it; says: what becomes of it, in words
    refused: the error it must end with, None where it must work; message: regular expressions that the error's text
    must match, so that it names the thing, the value and the cure
    holds(value): asserts on what `run` returned; families: whose tiny models it runs over, None for every family's
    """

    door: str
    what: str
    says: str
    run: Callable[[Ground], object]
    refused: type[IcdError] | None = None
    message: tuple[str, ...] = ()
    holds: Callable[[object], None] | None = None
    families: tuple[str, ...] | None = None

    def __post_init__(self):
        assert self.door in DOORS, f"{self.what}: the door is one of {DOORS}"
        assert (self.refused is None) != bool(self.message), f"{self.what}: a message exactly where it is refused"
        assert self.refused is not None or self.holds is not None, f"{self.what}: say what must hold of the result"
