"""Options of the gates: which comparison they judge, and by which limits."""

from typing import Annotated

from pydantic import Field, create_model

from icd_lib.experiment.comparisons import judged_names
from icd_lib.experiment.metrics import AT_LEAST, OUTSIDE, metrics_of
from icd_lib.options import OMITTED, OneOf, Section, option


def _latency(default):
    return _limit(default, "latency in the judged comparison, at most (-0.2 is 20 % less)", "fraction", -1, 0)


def _l2(default):
    return _limit(default, "L2 hit rate gained, percentage points, at least", "pp", 0, 100)


def _energy(default):
    return _limit(default, "energy per token relative to linear, at most", "fraction", -1, 0)


def _quality(default):
    return _limit(default, "quality lost against dense, percentage points, at most", "pp", 0, 100)


def _c():
    return _limit(OMITTED, "C of π₁ relative to π₀ on W′, at most (-0.1 is 10 % less)", "fraction", -1, 1)


def _q():
    return _limit(OMITTED, "Q of π₁ less Q of π₀ on W′, at least", None, -2, 2)


def _limit(default, doc: str, unit: str | None, low: float | None = None, high: float | None = None):
    return option(default, f"{doc}; null leaves it out", unit=unit, low=low, high=high)


class SmokeGate(Section):
    """Limits of the smoke gate, which decides a run's exit code."""

    latency_rel: float | None = _latency(-0.10)
    l2_pp: float | None = _l2(5.0)
    ept_rel: float | None = _energy(-0.08)
    quality_drop_pp: float | None = _quality(OMITTED)
    delta_c_rel: float | None = _c()
    delta_q: float | None = _q()


class StrictGate(Section):
    """Limits of the strict gate, which is reported."""

    latency_rel: float | None = _latency(-0.20)
    l2_pp: float | None = _l2(10.0)
    ept_rel: float | None = _energy(-0.15)
    quality_drop_pp: float | None = _quality(0.1)
    delta_c_rel: float | None = _c()
    delta_q: float | None = _q()


class GatesOptions(Section):
    """What counts as good enough."""

    comparison: Annotated[str, OneOf(judged_names)] = option(
        "same_transform",
        "what iterative is judged against: linear's layout with the same transform, or linear at the same budget",
    )
    smoke: SmokeGate = Field(default_factory=SmokeGate)
    strict: StrictGate = Field(default_factory=StrictGate)


def _with_metrics_from_outside() -> type[GatesOptions]:
    """The gates with a limit for every metric that has a `measure` of its own, too."""
    limits = {}
    for row in metrics_of(OUTSIDE):
        side = "least" if row.direction == AT_LEAST else "most"
        limits[row.key] = (float | None, _limit(OMITTED, f"{row.words}, at {side}", row.unit))
    if not limits:
        return GatesOptions
    gates = {}
    for name, gate in (("smoke", SmokeGate), ("strict", StrictGate)):
        wider = create_model(gate.__name__, __base__=gate, __doc__=gate.__doc__, **limits)
        gates[name] = (wider, Field(default_factory=wider))
    return create_model("GatesOptions", __base__=GatesOptions, __doc__=GatesOptions.__doc__, **gates)


GATES = _with_metrics_from_outside()
