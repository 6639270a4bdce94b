"""What a sweep file says beside its base and its factors."""

from typing import Annotated

from pydantic import Field

from icd_lib.options import OMITTED, Section, option

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class PruneOptions(Section):
    """Which points are not worth their time."""

    max_drop_pp: float = option(
        1.0,
        "quality lost where strengths are chosen, less 1.96 standard errors, above which a point is not measured",
        unit="pp",
        low=0,
        high=100,
    )
    along: tuple[str, ...] = option(
        (), "factors whose levels stand from weak to strong: where one lost too much, the stronger ones are not run"
    )


class SweepOptions(Section):
    """What a sweep does beside running its points."""

    sweep: str | None = option(None, "name of the sweep and of its folder; null: the file's name")
    repeat: tuple[Seed, ...] = option((), "seeds with which every point is run; none: the base's own seed")
    budget_minutes: float | None = option(None, "minutes after which no further point is started", unit="min", above=0)
    prune: PruneOptions | None = option(OMITTED, "stop points whose quality already fails")
