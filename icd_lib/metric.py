"""Figures: a number never travels without its unit, its kind, its sample size and its method."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["measured", "simulated", "modelled", "not_measured"]
KINDS = ("measured", "simulated", "modelled", "not_measured")


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A test of whether two arms differ (`icd_lib.measure.statistics.paired_test`)."""

    p: float
    effect: float
    method: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number as it goes into JSON; what has a default is left out there where it is None.

    value    in `unit`; None exactly when `kind` is "not_measured" (then `reason` says why)
    n        number of samples behind the value; method: how it was obtained, in words
    ci95     (low, high) in the unit of the value; se_pp: standard error, percentage points
    p50, p95, p99: percentiles of a latency, ms; test: of a comparison of two arms

    Raises ValueError when value, kind and reason contradict each other, or the interval is reversed.
    """

    value: float | None
    unit: str
    kind: Kind
    n: int | None
    method: str | None
    ci95: tuple[float, float] | None = None
    reason: str | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    se_pp: float | None = None
    test: PairedTest | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}, got {self.kind!r}")
        if (self.value is None) != (self.kind == "not_measured"):
            given = f"value {self.value!r} and kind {self.kind!r}"
            raise ValueError(f"value is None exactly when kind is 'not_measured', got {given}")
        if self.kind == "not_measured" and not self.reason:
            raise ValueError("a figure that was not measured needs a reason")
        check_interval(self.ci95)

    @property
    def is_missing(self) -> bool:
        """Whether there is no value, but a reason why not."""
        return self.kind == "not_measured"


def figure(value, unit, kind, *, n=None, method=None, ci95=None, reason=None) -> Figure:
    """A `Figure` of plain numbers, from those of Python or numpy; ValueError also on one that is not finite.

    >>> figure(1.5, "ms", "measured", n=60, method="median", ci95=(1.4, 1.6)).ci95
    (1.4, 1.6)
    >>> not_measured("%", "no GPU").value is None
    True
    """
    bounds = None
    if ci95 is not None:
        low, high = ci95
        bounds = (_number(low, "ci95"), _number(high, "ci95"))
    return Figure(
        value=None if value is None else _number(value, "value"),
        unit=unit,
        kind=kind,
        n=None if n is None else int(n),
        method=method,
        ci95=bounds,
        reason=None if reason is None else str(reason),
    )


def not_measured(unit, reason, *, method=None) -> Figure:
    """The figure of something that could not be measured; `reason` says why."""
    return figure(None, unit, "not_measured", method=method, reason=reason)


def check_interval(ci95) -> None:
    """ValueError unless an interval (low, high) is the right way round; None is no interval."""
    if ci95 is not None and (len(ci95) != 2 or ci95[0] > ci95[1]):
        raise ValueError(f"ci95 is (low, high), got {tuple(ci95)}")


def check_bounded(*figures: Figure | None) -> None:
    """ValueError if one of the figures was measured and has no interval; None is no figure."""
    for item in figures:
        if item is not None and not item.is_missing and item.ci95 is None:
            raise ValueError(f"a figure of {item.value} {item.unit} has no ci95")


def _number(value, what: str) -> int | float:
    """`value` as a plain int or a finite float (numpy scalars do not go into JSON)."""
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{what} is a number, got {type(value).__name__} {value!r}")
    if not math.isfinite(number):
        raise ValueError(f"{what} is finite, got {number}")
    return number
