"""Whether what one factor does depends on another: quadruples of points that differ in nothing but these two.

Of factors A and B with first levels a0 and b0, and further levels a and b:

    (y(a, b) − y(a0, b)) − (y(a, b0) − y(a0, b0))

with y the logarithm of latency or size, or the quality lost in pp: the effect of a against a0 at b, less the same
effect at b0. It is the same with A and B exchanged. Mean over the quadruples, and Student's interval over them.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from icd_lib.metric import Figure
from icd_lib.sweeps.pairs import groups_of, is_alike, latency, logs, mean_figure, quality, size, unlike
from icd_lib.sweeps.result import Row

Quadruple = tuple[Row, Row, Row, Row]


@dataclass(frozen=True)
class Interaction:
    """How much more (log ratio, pp) `level` changes against its factor's first at `other_level` than at `other_first`.

    latency, size: ratio of the two ratios, less 1.
    """

    factor: str
    level: str
    first: str
    other: str
    other_level: str
    other_first: str
    latency: Figure
    quality_drop_pp: Figure
    size: Figure

    @property
    def is_clear(self) -> bool:
        """Whether an interval of latency or quality leaves out 0."""
        items = (self.latency, self.quality_drop_pp)
        return any(item.ci95 is not None and not item.ci95[0] <= 0 <= item.ci95[1] for item in items)


def interactions(rows: Sequence[Row], factors: Mapping[str, Sequence[str]]) -> list[Interaction]:
    """Every further level of a factor with every further level of another; `rows` are those of one arm.

    What has no quadruple at all, and so nothing to tell, is left out.
    """
    found = []
    for (factor, levels), (other, others) in itertools.combinations(factors.items(), 2):
        groups = groups_of(rows, (factor, other))
        for level, other_level in itertools.product(levels[1:], others[1:]):
            quadruples = list(_quadruples(groups, (levels[0], level), (others[0], other_level)))
            if quadruples:
                names = (factor, level, levels[0], other, other_level, others[0])
                found.append(_interaction(names, quadruples))
    return found


def _quadruples(groups: list, levels: tuple[str, str], others: tuple[str, str]) -> Iterator[Quadruple]:
    """(first, first), (level, first), (first, level), (level, level) of every group that has all four."""
    (a0, a), (b0, b) = levels, others
    for group in groups:
        four = [group.get(key) for key in ((a0, b0), (a, b0), (a0, b), (a, b))]
        if None not in four:
            yield tuple(four)


def _interaction(names: tuple[str, ...], quadruples: list[Quadruple]) -> Interaction:
    def contrast(four: Sequence[float]) -> float:
        neither, first, second, both = four
        return (both - second) - (first - neither)

    def ratio(value: Callable[[Row], float | None]) -> Figure:
        taken = [found for four in quadruples if (found := logs([value(row) for row in four]))]
        return mean_figure([contrast(four) for four in taken], "fraction", "quadruple", math.expm1)

    drops = [[drop for row in four if (drop := quality(row)) is not None] for four in quadruples]
    lost = mean_figure([contrast(four) for four in drops if len(four) == 4], "pp", "quadruple")
    factor, level, first, other, other_level, other_first = names
    if not is_alike((factor, other)):  # a ratio of ratios is the same in any model's unit, a difference in pp is not
        lost = unlike("pp")
    return Interaction(factor, level, first, other, other_level, other_first, ratio(latency), lost, ratio(size))
