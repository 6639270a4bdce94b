"""A table of rows as a workload: its arms are layouts with a mask, read by a stream of accesses."""

from collections.abc import Iterator
from functools import cached_property

from icd_lib.experiment.arms import ROWS
from icd_lib.metric import Figure
from icd_lib.records.measured import Measured
from icd_lib.workloads.base import Timed, Workload
from icd_lib.workloads.rows.arms import Arm, compared_arms, control_arms
from icd_lib.workloads.rows.context import TableContext
from icd_lib.workloads.rows.graph import certify_axis, weigh_cost, write_graph
from icd_lib.workloads.rows.measure import measured, metrics, timed
from icd_lib.workloads.rows.setup import describe
from icd_lib.workloads.rows.solve import solve_mode
from icd_lib.workloads.rows.validate import claim, evidence


class RowsWorkload(Workload):
    """`context` has the accesses, the table's geometry, the transform and the solver."""

    lays_out, item, threads = ROWS, "event", 1

    @cached_property
    def context(self) -> TableContext:
        return TableContext(self.run, self.progress)

    def describe(self) -> dict:
        return describe(self.context)

    def certify(self) -> list[dict]:
        return [certify_axis(self.context)]

    def write_graphs(self) -> dict:
        return write_graph(self.context)

    def learn(self) -> dict:
        return {"calibration": weigh_cost(self.context)}

    def solve(self, mode: str) -> dict:
        return solve_mode(self.context, mode)

    def compared(self) -> dict[str, Arm]:
        return compared_arms(self.context)

    def controls(self) -> dict[str, Arm]:
        return control_arms(self.context)

    @cached_property
    def _checksums(self) -> dict[str, dict]:
        """Way of reading → arm → what it sums up; filled by `timed`."""
        return {}

    def timed(self, arms: dict[str, Arm]) -> Iterator[Timed]:
        return timed(self.context, arms, self._checksums)

    def measured(self, compared: dict[str, Arm], controls: dict[str, Arm], latency: dict) -> dict:
        return measured(self.context, compared, controls, latency, self._checksums)

    def metrics(self, arm: str, report: Measured) -> dict:
        return metrics(arm, report)

    def claim(self, sections: dict[str, dict], report: Measured) -> None:
        claim(sections, report)

    def evidence(self, report: Measured) -> dict:
        return evidence(self.context, report)

    def closing(self, sections: dict[str, dict], judged: dict[str, Figure]) -> dict:
        return {"judged": judged}
