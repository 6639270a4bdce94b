"""report.csv of a sweep: one row a point, its factors, what became of it, and the figures of every arm."""

import csv
import io

from icd_lib.experiment.gates import GATES
from icd_lib.metric import Figure
from icd_lib.report.rows import csv_cell
from icd_lib.scrub.text import scrub_text
from icd_lib.sweeps.collect import ARMS
from icd_lib.sweeps.outcome import ArmFigures
from icd_lib.sweeps.result import PlannedPoint, SweepResult

_BEFORE = ("number", "point", "status", "reason")
_WHERE = ("model", "shape", "machine", "runtime")
_AFTER = ("on_frontier", "elapsed_s", "merged", "command")
_FIGURES = (
    "latency_ms",
    "latency_vs_dense",
    "quality_drop_pp",
    "other_drop_pp",
    "peak_memory_mb",
    "energy_j_per_token",
)


def columns_of(result: SweepResult) -> list[str]:
    """Names of the columns; a figure has its value, the ends of its 95 % interval, and its kind."""
    arms = [f"{arm}_{name}" for arm in ARMS for name in _arm_columns()]
    factors = [f"factor.{name}" for name in result.planned.factors]
    return [*_BEFORE, *factors, *_WHERE, *GATES, *arms, *_AFTER]


def _arm_columns() -> list[str]:
    figures = [f"{name}{part}" for name in _FIGURES for part in ("", "_low", "_high", "_kind")]
    return [*figures, "parameter_bytes"]


def point_rows(result: SweepResult) -> list[list]:
    """A row for every planned point; a figure that is not there is None."""
    on = {row.point for row in result.pareto()}
    return [_row(result, number, point, point.name in on) for number, point in enumerate(result.planned.points, 1)]


def sweep_csv(result: SweepResult) -> str:
    """All of it as CSV text, scrubbed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns_of(result))
    for row in point_rows(result):
        writer.writerow([csv_cell(cell) for cell in row])
    return scrub_text(buffer.getvalue())


def _row(result: SweepResult, number: int, point: PlannedPoint, on_frontier: bool) -> list:
    outcome = result.outcome(point.name)
    where = outcome.where
    cells: list = [number, point.name, outcome.status, outcome.reason, *point.levels.values()]
    cells += [where.model, where.shape, result.machine(where), where.runtime] if where else [None] * len(_WHERE)
    cells += [outcome.gates.get(gate) for gate in GATES]
    for arm in ARMS:
        cells += _arm_cells(outcome.arms.get(arm))
    return [*cells, on_frontier, outcome.elapsed_s, "; ".join(point.merged), outcome.command]


def _arm_cells(figures: ArmFigures | None) -> list:
    if figures is None:
        return [None] * len(_arm_columns())
    cells: list = []
    for name in _FIGURES:
        item: Figure = getattr(figures, name)
        low, high = item.ci95 or (None, None)
        cells += [item.value, low, high, item.kind]
    return [*cells, figures.parameter_bytes]
