"""Gathers that a compiled model does at run time: the proof that a layout costs nothing there."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gathers:
    """How many, by kind; those of constants are the compiler's, before anything runs.

    lookups: rows of a table by what the inputs say (token ids); permutations: of an activation, by constant indices;
    other: of masks and other integers, or by indices that are computed.
    """

    lookups: int = 0
    permutations: int = 0
    other: int = 0
