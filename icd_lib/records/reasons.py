"""Why a candidate was not kept: a code for programs, words for people, and the numbers that were compared."""

import math
from dataclasses import dataclass
from typing import Literal

Code = Literal["quality", "drop-in quality", "cosine", "perplexity", "latency", "layout", "transform", "not finite"]


@dataclass(frozen=True)
class Reason:
    """`value` was found, `limit` was allowed; None where the reason is no comparison of numbers.

    code: None only in what was read of a run of before there were codes
    """

    code: Code | None
    text: str
    value: float | None = None
    limit: float | None = None

    def to_json(self) -> dict:
        """`value` is null where it is no number, which is a reason too."""
        value = self.value if self.value is not None and math.isfinite(self.value) else None
        return {"code": self.code, "value": value, "limit": self.limit}
