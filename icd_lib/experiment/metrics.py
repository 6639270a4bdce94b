"""The metrics of a verdict: one row a metric, what it is in words, its unit, and how a gate judges it."""

from collections.abc import Callable
from dataclasses import dataclass

from icd_lib.metric import Figure, not_measured
from icd_lib.records.decoding import DECODING, Decoding
from icd_lib.records.generation import EXPORTED_ARM, GENERATION, Generation
from icd_lib.registry import Registry

AT_MOST, AT_LEAST = "at_most", "at_least"
BOUND, ESTIMATE, EXACT = "bound", "estimate", "exact"
PER_TOKEN = "time per token as exported"
COMPARED, LOST, LAYOUT, OUTSIDE = "compared", "lost", "layout", "outside"


@dataclass(frozen=True)
class Metric:
    """title: of a gate's check, words: in a sentence; unit: of its figure.

    direction: on which side of a threshold it has to lie
    judged: by the `BOUND` of its 95 % interval that lies on the wrong side, by its `ESTIMATE`, or by its value, where
    it is computed and not sampled (`EXACT`)
    figure_of: whose figure it is: the judged comparison's (`COMPARED`), the result's against dense (`LOST`), that of
    π₁ against π₀ on W′ (`LAYOUT`), or of none of them (`OUTSIDE`), which `measure` gives: measure(run, report) ->
    figure, from the run's files and what measure.json holds (`icd_lib.records.measured`); None where it means nothing.
    """

    key: str
    title: str
    words: str
    unit: str
    direction: str = AT_MOST
    judged: str = BOUND
    figure_of: str = OUTSIDE
    measure: Callable | None = None


def _per_token(run, report) -> Figure | None:
    """Time per token of what is exported against dense in PyTorch, at the first shape of the clock."""
    kinds = {GENERATION: Generation, DECODING: Decoding}  # with a cache, with a state
    there = next((name for name in kinds if run.path(name).is_file()), None)
    if there is None:
        return None
    shapes = run.read(kinds[there], there).clock
    arm = shapes[0].arms.get(EXPORTED_ARM) if shapes else None
    return not_measured("fraction", "nothing that is exported was timed") if arm is None else arm.step_vs_dense


_OWN = (
    Metric("latency_rel", "latency", "latency", "fraction", figure_of=COMPARED),
    Metric("l2_pp", "L2 hit rate", "L2 hit rate", "pp", AT_LEAST, figure_of=COMPARED),
    Metric("ept_rel", "energy per token", "energy per token", "fraction", figure_of=COMPARED),
    Metric("quality_drop_pp", "quality lost against dense", "quality", "pp", judged=ESTIMATE, figure_of=LOST),
    Metric("token_rel", PER_TOKEN, f"{PER_TOKEN}, against dense in PyTorch", "fraction", measure=_per_token),
    Metric("delta_c_rel", "C of π₁ against π₀ on W′", "ΔC", "fraction", judged=EXACT, figure_of=LAYOUT),
    Metric("delta_q", "Q of π₁ less Q of π₀ on W′", "ΔQ", "1", AT_LEAST, EXACT, LAYOUT),
)
METRICS = Registry("metrics", {row.key: row for row in _OWN})


def metrics_of(whose: str) -> list[Metric]:
    """The metrics whose figure is one of `whose` (`COMPARED`, `LOST`, `LAYOUT`, `OUTSIDE`)."""
    return [row for row in METRICS.values() if row.figure_of == whose]
