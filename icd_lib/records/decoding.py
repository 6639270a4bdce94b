"""measure/decoding.json: how fast every arm of a model with a state generates, and that layouts say the same tokens."""

from dataclasses import dataclass, field

from icd_lib.records.generation import DecodeShape, DeployedPoint

DECODING = "measure/decoding.json"


@dataclass(frozen=True, kw_only=True)
class SameTokens:
    """Greedy continuations of one arm beside another's, whose function is the same: of `texts` so many are `equal`.

    first_apart: the earliest token of any text that differs, None where none does.
    """

    arm: str
    other: str
    texts: int
    tokens: int
    equal: int
    first_apart: int | None = None


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """All of decoding.json. exported: the row in which the result is left for use, None where it is not left."""

    clock: list[DecodeShape]
    exported: str | None = None
    same_tokens: list[SameTokens] = field(default_factory=list)
    deployed: list[DeployedPoint] = field(default_factory=list)
