"""The metrics of a verdict: one row a metric, what it is in words, its unit, and how a gate judges it."""

from collections.abc import Callable
from dataclasses import dataclass

from icd_lib.registry import Registry

AT_MOST, AT_LEAST = "at_most", "at_least"
BOUND, ESTIMATE, EXACT = "bound", "estimate", "exact"
COMPARED, LOST, LAYOUT, OUTSIDE = "compared", "lost", "layout", "outside"


@dataclass(frozen=True)
class Metric:
    """title: of a gate's check, words: in a sentence; unit: of its figure.

    direction: on which side of a threshold it has to lie
    judged: by the `BOUND` of its 95 % interval that lies on the wrong side, by its `ESTIMATE`, or by its value, where
    it is computed and not sampled (`EXACT`)
    figure_of: whose figure it is: the judged comparison's (`COMPARED`), the result's against dense (`LOST`), that of
    π₁ against π₀ on W′ (`LAYOUT`), or a metric's from outside (`OUTSIDE`), which `measure` gives:
    measure(run, report) -> figure, from the run's files and what measure.json holds (`icd_lib.records.measured`).
    """

    key: str
    title: str
    words: str
    unit: str
    direction: str = AT_MOST
    judged: str = BOUND
    figure_of: str = OUTSIDE
    measure: Callable | None = None


_OWN = (
    Metric("latency_rel", "latency", "latency", "fraction", figure_of=COMPARED),
    Metric("l2_pp", "L2 hit rate", "L2 hit rate", "pp", AT_LEAST, figure_of=COMPARED),
    Metric("ept_rel", "energy per token", "energy per token", "fraction", figure_of=COMPARED),
    Metric("quality_drop_pp", "quality lost against dense", "quality", "pp", judged=ESTIMATE, figure_of=LOST),
    Metric("delta_c_rel", "C of π₁ against π₀ on W′", "ΔC", "fraction", judged=EXACT, figure_of=LAYOUT),
    Metric("delta_q", "Q of π₁ less Q of π₀ on W′", "ΔQ", "1", AT_LEAST, EXACT, LAYOUT),
)
METRICS = Registry("metrics", {row.key: row for row in _OWN})


def metrics_of(whose: str) -> list[Metric]:
    """The metrics whose figure is one of `whose` (`COMPARED`, `LOST`, `LAYOUT`, `OUTSIDE`)."""
    return [row for row in METRICS.values() if row.figure_of == whose]
