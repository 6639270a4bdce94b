"""What a factor does by itself: pairs of points that differ in nothing else, and the mean of their differences.

For every level beside a factor's first one: mean over the pairs and a 95 % interval from Student's t over them, which
tells how far the effect differs from pair to pair (interactions, and the noise of the measurement). Ratios of latency
and size are averaged as logarithms. Scenarios differ in size alone: their models are timed and judged each in its way.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from icd_lib.metric import Figure
from icd_lib.sweeps.pairs import groups_of, is_alike, latency, logs, mean_figure, quality, size, unlike
from icd_lib.sweeps.result import Row

Pairs = list[tuple[Row, Row]]


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
        groups = groups_of(rows, (factor,))
        for level in levels[1:]:
            keys = (levels[0],), (level,)
            pairs = [(group[keys[0]], group[keys[1]]) for group in groups if all(key in group for key in keys)]
            found.append(_effect(factor, level, levels[0], pairs))
    return found


def arm_effects(rows: Sequence[Row], arm: str, against: str) -> Effect:
    """The same for an arm: its pairs are within the points, where both were timed interleaved."""
    of = {(row.point, row.arm): row for row in rows}
    pairs = [(of[point, against], row) for (point, name), row in of.items() if name == arm and (point, against) in of]
    return _effect("arm", arm, against, pairs)


def _effect(factor: str, level: str, against: str, pairs: Pairs) -> Effect:
    def ratio(value: Callable[[Row], float | None]) -> Figure:
        taken = [found for pair in pairs if (found := logs([value(row) for row in pair]))]
        return mean_figure([second - first for first, second in taken], "fraction", "pair", math.expm1)

    if not is_alike((factor,)):
        return Effect(factor, level, against, unlike("fraction"), unlike("pp"), ratio(size))
    drops = [(quality(first), quality(second)) for first, second in pairs]
    lost = mean_figure([b - a for a, b in drops if a is not None and b is not None], "pp", "pair")
    return Effect(factor, level, against, ratio(latency), lost, ratio(size))
