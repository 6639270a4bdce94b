"""What is laid out, run and judged: one row a kind of workload. Rows cost no import of what they name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from icd_lib.experiment.arms import MODEL, ROWS
from icd_lib.registry import Registry

if TYPE_CHECKING:
    from icd_lib.run.artifacts import Run
    from icd_lib.workloads.base import Workload


@dataclass(frozen=True)
class Kind:
    """A value of `workload.kind`.

    lays_out: whose arms, comparisons and pages it has, `MODEL` or `ROWS`; place: its `Workload`, "module:class";
    preload: modules that its stages import, for a process that imports ahead of them; torch: whether it computes with
    it, on as many threads as the scenario says.
    """

    lays_out: str
    place: str
    preload: tuple[str, ...]
    torch: bool = False

    def load(self) -> type[Workload]:
        """The class of the workload."""
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)


_ROWS = Kind(ROWS, "icd_lib.workloads.rows.workload:RowsWorkload", ("icd_lib.workloads.rows.workload",))
WORKLOADS = Registry(
    "workloads",
    {
        "model": Kind(
            MODEL, "icd_lib.workloads.model.workload:ModelWorkload", ("icd_lib.workloads.model.workload",), torch=True
        ),
        "mock": _ROWS,
        "trace": _ROWS,
    },
)


def kind_of(run: Run) -> Kind:
    """The row of the run's kind of workload."""
    return WORKLOADS[run.scenario.get("workload.kind")]


def make_workload(run: Run, progress: Callable[[str], None] = print) -> Workload:
    """The run's workload; what it needs is loaded when it is asked for."""
    return kind_of(run).load()(run, progress)
