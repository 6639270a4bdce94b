"""Figures: a number never travels without its unit, its kind, its sample size and its method."""

import math

KINDS = ("measured", "simulated", "modelled", "not_measured")


def figure(value, unit, kind, *, n=None, method=None, ci95=None, reason=None) -> dict:
    """One number as it goes into JSON: {"value", "unit", "kind", "n", "method", "ci95"?, "reason"?}.

    value    float or int in `unit`; None exactly when `kind` is "not_measured" (then `reason` says why)
    n        number of samples behind the value; method: how it was obtained, in words
    ci95     (low, high) in the unit of the value

    Raises ValueError on a value that is not finite, or when value, kind and reason contradict each other.

    >>> figure(1.5, "ms", "measured", n=60, method="median", ci95=(1.4, 1.6))["ci95"]
    [1.4, 1.6]
    >>> not_measured("%", "no GPU")["value"] is None
    True
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}, got {kind!r}")
    if (value is None) != (kind == "not_measured"):
        raise ValueError(f"value is None exactly when kind is 'not_measured', got value {value!r} and kind {kind!r}")
    if kind == "not_measured" and not reason:
        raise ValueError("a figure that was not measured needs a reason")
    result = {
        "value": None if value is None else _number(value, "value"),
        "unit": unit,
        "kind": kind,
        "n": None if n is None else int(n),
        "method": method,
    }
    if ci95 is not None:
        low, high = (_number(bound, "ci95") for bound in ci95)
        if low > high:
            raise ValueError(f"ci95 is (low, high), got ({low}, {high})")
        result["ci95"] = [low, high]
    if reason is not None:
        result["reason"] = str(reason)
    return result


def not_measured(unit, reason, *, method=None) -> dict:
    """The figure of something that could not be measured; `reason` says why."""
    return figure(None, unit, "not_measured", method=method, reason=reason)


def _number(value, what: str) -> int | float:
    """`value` as a plain int or a finite float (numpy scalars do not go into JSON)."""
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"{what} is a number, got {type(value).__name__} {value!r}")
    if not math.isfinite(number):
        raise ValueError(f"{what} is finite, got {number}")
    return number
