"""What a factor does by itself: pairs of points that differ in nothing else, and the mean of their differences.

For every level beside a factor's first one: mean over the pairs and a 95 % interval from Student's t over them, which
tells how far the effect differs from pair to pair (interactions, and the noise of the measurement). Ratios of latency
and size are averaged as logarithms.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from icd_lib.metric import Figure, figure, not_measured
from icd_lib.sweeps.result import Row

METHOD = "mean over pairs of points that differ in nothing else; Student's t over the pairs"


@dataclass(frozen=True)
class Effect:
    """A level of a factor against its first one."""

    factor: str
    level: str
    against: str
    latency: Figure
    quality_drop_pp: Figure
    size: Figure


def main_effects(rows: Sequence[Row], factors: Mapping[str, Sequence[str]]) -> list[Effect]:
    """Every level of every factor against its first one; `rows` are those of one arm."""
    found = []
    for factor, levels in factors.items():
        for level in levels[1:]:
            pairs = pairs_of(rows, factor, levels[0], level)
            found.append(_effect(factor, level, levels[0], pairs))
    return found


def arm_effects(rows: Sequence[Row], arm: str, against: str) -> Effect:
    """The same for an arm: its pairs are within the points, where both were timed interleaved."""
    of = {(row.point, row.arm): row for row in rows}
    pairs = [(of[point, against], row) for (point, name), row in of.items() if name == arm and (point, against) in of]
    return _effect("arm", arm, against, pairs)


def pairs_of(rows: Iterable[Row], factor: str, first: str, second: str) -> list[tuple[Row, Row]]:
    """(row at `first`, row at `second`) that agree in every other factor and were measured on one machine."""
    by_rest: dict[tuple, dict[str, Row]] = {}
    for row in rows:
        rest = tuple((name, level) for name, level in row.levels.items() if name != factor)
        by_rest.setdefault((rest, row.where.machine), {})[row.levels[factor]] = row
    return [(found[first], found[second]) for found in by_rest.values() if first in found and second in found]


def _effect(factor: str, level: str, against: str, pairs: list[tuple[Row, Row]]) -> Effect:
    def ratio(value: Callable[[Row], float | None]) -> Figure:
        logs = [math.log(b / a) for a, b in _both(pairs, value) if a > 0 and b > 0]
        return mean_figure(logs, "fraction", math.expm1)

    drops = [b - a for a, b in _both(pairs, lambda row: row.figures.quality_drop_pp.value)]
    return Effect(
        factor,
        level,
        against,
        ratio(lambda row: row.figures.latency_ms.value),
        mean_figure(drops, "pp"),
        ratio(lambda row: float(row.figures.parameter_bytes)),
    )


def _both(pairs: list[tuple[Row, Row]], value: Callable[[Row], float | None]) -> list[tuple[float, float]]:
    found = [(value(first), value(second)) for first, second in pairs]
    return [(a, b) for a, b in found if a is not None and b is not None]


def mean_figure(values: Sequence[float], unit: str, back: Callable[[float], float] = lambda value: value) -> Figure:
    """Mean and its 95 % interval, both through `back`; no interval of one value, and no figure of none."""
    if not values:
        return not_measured(unit, "no two points that differ in nothing else were both measured")
    n, mean = len(values), math.fsum(values) / len(values)
    if n == 1:
        return figure(back(mean), unit, "measured", n=1, method=f"{METHOD}; one pair, so no interval")
    from scipy.stats import t

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(t.ppf(0.975, n - 1)) * spread
    return figure(back(mean), unit, "measured", n=n, method=METHOD, ci95=(back(mean - half), back(mean + half)))
