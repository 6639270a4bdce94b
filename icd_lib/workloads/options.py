"""Options of what is laid out: a model, or a table of rows."""

from typing import Annotated

from icd_lib.options import OneOf, Section, option
from icd_lib.workloads import WORKLOADS


class WorkloadOptions(Section):
    """What is laid out; all but `kind` is about tables of rows."""

    kind: Annotated[str, OneOf(WORKLOADS)] = option("model", "what is laid out: a model, or a table of rows")
    rows: int = option(65536, "rows of the mock's table, D", low=2, high=2**26)
    row_bytes: int = option(16, "bytes of one row of the table, a multiple of 8", unit="bytes", low=8, high=2**20)
    blocks: int = option(1024, "communities planted in the mock's accesses", low=1)
    sizes: Annotated[str, OneOf("icd_lib.graph.mock:SIZE_KINDS")] = option("heavy", "sizes of the planted communities")
    events: int = option(80_000, "access events of the mock", low=2)
    per_event: int = option(12, "rows that one event of the mock touches", low=1)
    noise: float = option(0.1, "share of the mock's accesses that go anywhere", low=0, high=0.99)
    burst: int = option(1, "events of the mock in a row that keep to one community", low=1)
    unseen_share: float = option(
        0.5, "share of the events, the last ones, that no layout is solved on", above=0, high=0.9
    )
    max_accesses: int = option(4_000_000, "accesses of a trace that are used, from its start", low=1)
