"""Options of the access graphs."""

from typing import Annotated

from icd_lib.graph.normalize import NORMALIZATIONS
from icd_lib.options import OneOf, Section, option


class EdgeOptions(Section):
    """How large an access graph may be."""

    nnz_cap: int = option(200_000, "heaviest edges kept per access graph", low=1)


class GraphOptions(EdgeOptions):
    """The access graphs W, and the figures of this machine that go with them."""

    remeasure: bool = option(False, "measure again what costs how much, even if this machine's figures are known")
    trace: str | None = option(None, "file of access events; null takes the shipped trace", is_path=True)
    normalize: Annotated[str, OneOf(NORMALIZATIONS)] = option(
        "none", "weaken edges of rows that are touched with everything"
    )
    window: int = option(1, "consecutive events whose rows count as touched together", low=1, high=1000)
