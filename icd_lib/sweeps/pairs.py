"""Points that differ in nothing but some factors and were measured on one machine, and means over such groups."""

import math
from collections.abc import Callable, Iterable, Sequence

from icd_lib.metric import Figure, figure, not_measured
from icd_lib.sweeps.result import Row

BASE = "base"  # the factor whose levels are scenarios
Group = dict[tuple[str, ...], Row]


def groups_of(rows: Iterable[Row], factors: Sequence[str]) -> list[Group]:
    """Rows that agree in every other factor and in their machine: levels of `factors` → row."""
    found: dict[tuple, Group] = {}
    for row in rows:
        rest = tuple((name, level) for name, level in row.levels.items() if name not in factors)
        found.setdefault((rest, row.where.machine, row.where.host), {})[tuple(row.levels[name] for name in factors)] = (
            row
        )
    return list(found.values())


def mean_figure(
    values: Sequence[float], unit: str, what: str, back: Callable[[float], float] = lambda value: value
) -> Figure:
    """Mean of one value a `what` and its 95 % interval (Student's t), both through `back`.

    No interval of one value, and no figure of none. what: "pair" or "quadruple" of points.
    """
    if not values:
        return not_measured(unit, f"no {what} of points that differ in nothing else was measured")
    n, mean, method = len(values), math.fsum(values) / len(values), f"mean over {what}s that differ in nothing else"
    if n == 1:
        return figure(back(mean), unit, "measured", n=1, method=f"{method}; one {what}, so no interval")
    from scipy.stats import t

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(t.ppf(0.975, n - 1)) * spread
    ends = (back(mean - half), back(mean + half))
    return figure(back(mean), unit, "measured", n=n, method=f"{method}; Student's t over them", ci95=ends)


def logs(numbers: Sequence[float | None]) -> list[float] | None:
    """Their logarithms; None where one is missing or not positive."""
    found = [math.log(number) for number in numbers if number is not None and number > 0]
    return found if len(found) == len(numbers) else None


def is_alike(factors: Sequence[str]) -> bool:
    """Whether points that differ in these factors alone are timed and judged alike: not those of two scenarios."""
    return BASE not in factors


def unlike(unit: str) -> Figure:
    """What stands in the place of an effect on latency or quality of two scenarios."""
    return not_measured(unit, "scenarios have models of their own, each judged by tasks and text of its own")


def latency(row: Row) -> float | None:
    return row.figures.latency_ms.value


def quality(row: Row) -> float | None:
    return row.figures.quality_drop_pp.value


def size(row: Row) -> float:
    return float(row.figures.parameter_bytes)
