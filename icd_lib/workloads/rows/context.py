"""What every stage of a table scenario needs: its accesses, the table's geometry, W, the transform, the solver."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from icd_lib.axes.permutation import check_permutation
from icd_lib.codesign.calibration import Calibration
from icd_lib.codesign.layouts import SolverSettings, read_perm_record
from icd_lib.errors import AxisError, ResourceError
from icd_lib.graph.contract import check_w
from icd_lib.graph.events import Events
from icd_lib.graph.normalize import normalize_graph
from icd_lib.graph.trace import build_trace
from icd_lib.measure.cache_sim import TYPICAL_CACHES, CacheLevel, machine_caches
from icd_lib.run.artifacts import Run
from icd_lib.solver.cost import CostConfig
from icd_lib.storage.npz import load_graph
from icd_lib.transforms.effects import Alive
from icd_lib.transforms.sparsity.rows import prune_rows
from icd_lib.workloads.rows import TableWorkload
from icd_lib.workloads.rows.events import read_events, split_events

AXIS = "rows"
PAGE_BYTES = 4096
SAME_WORK = "unchanged by construction: every arm reads the same living rows, and the checksums are equal"
QUICK = "quick run: same stages and schema, fewer samples; figures are rough"


@dataclass
class TableContext:
    """Loaded lazily, so that a stage pays only for what it uses."""

    run: Run
    progress: Callable[[str], None] = print

    def get(self, path: str):
        """A value of the scenario."""
        return self.run.scenario.get(path)

    @cached_property
    def events(self) -> Events:
        return read_events(self.run)

    @cached_property
    def _split(self) -> tuple[Events, Events]:
        return split_events(self.events, self.get("workload.unseen_share"))

    @property
    def seen(self) -> Events:
        """The events that layouts are solved on."""
        return self._split[0]

    @property
    def streams(self) -> dict[str, Events]:
        """What is measured: the unseen events first, they are judged."""
        return {"unseen": self._split[1], "seen": self._split[0]}

    def workload(self, events: Events, *, chained: bool = True) -> TableWorkload:
        """The table read by `events`; chained: each read waits for the one before it."""
        return TableWorkload(events, self.get("workload.row_bytes"), chained)

    @property
    def size(self) -> int:
        return self.events.size

    @property
    def tile(self) -> int:
        """Rows that are dropped together: those of one cache line."""
        return self.get("cost.g")

    @cached_property
    def levels(self) -> list[CacheLevel]:
        """This machine's caches, or common ones where it hides them (`levels_note` says so)."""
        try:
            return machine_caches()
        except ResourceError:
            return list(TYPICAL_CACHES)

    @property
    def levels_note(self) -> str:
        try:
            machine_caches()
        except ResourceError as error:
            return f"a common core's caches stand in: {error.args[0]}"
        return "this machine's caches"

    def build_graph(self, events: Events) -> tuple[sp.csr_array, dict]:
        """W of some events and what was counted and dropped on the way."""
        limits = {"window": self.get("graph.window"), "nnz_cap": self.get("graph.nnz_cap")}
        graph, counted = build_trace(events, size=self.size, **limits)
        return check_w(normalize_graph(graph, self.get("graph.normalize"))), counted

    @cached_property
    def graph(self) -> sp.csr_array:
        """W of the seen events, as the graph stage wrote it."""
        return check_w(load_graph(self.run.dir / "graph" / f"W.{AXIS}.npz"))

    @cached_property
    def pruned(self) -> Alive:
        """The transform: the same rows die in every arm."""
        touches = np.bincount(self.seen.ids, minlength=self.size)
        share, scatter = self.get("transform.dead_share"), self.get("transform.scatter")
        return prune_rows(touches, share, scatter=scatter, seed=self.get("seed"))

    @property
    def alive(self) -> np.ndarray:
        return self.pruned.alive

    @cached_property
    def calibration(self) -> Calibration | None:
        """The calibration of the graph stage, None where the scenario asks for no pilots."""
        if not self.get("calibration.pilots"):
            return None
        return Calibration.from_json(self.run.read_json("graph/calibration.json"))

    @property
    def given_cost(self) -> CostConfig:
        """Geometry and weights as the scenario gives them; a block is a page where it asks for k = 0."""
        given = self.get("cost")
        pages = max(1, self.size * self.get("workload.row_bytes") // PAGE_BYTES)
        return CostConfig(**given | {"k": given["k"] or pages, "h": given["h"] or max(1, self.size // 2)})

    @property
    def cost(self) -> CostConfig:
        """As given, with the calibrated weights where the fit was good and the scenario takes them."""
        calibration = self.calibration
        if calibration is None or calibration.kept_defaults or not self.get("calibration.apply"):
            return self.given_cost
        weights = {key: getattr(calibration.weights, key) for key in ("alpha", "beta", "mu")}
        return dataclasses.replace(self.given_cost, **weights)

    def solver_settings(self, cost: CostConfig) -> SolverSettings:
        """The scenario's solver with this cost."""
        return SolverSettings.of(self.get("solver"), cost, self.get("seed"))

    def given_layout(self, mode: str) -> np.ndarray | None:
        """π₀ of `solver.reuse_perm`, checked against this table; None where nothing is reused."""
        path = self.get("solver.reuse_perm")
        if not path:
            return None
        return reused_layout(path, mode, self.size)


def reused_layout(path: str, mode: str, size: int) -> np.ndarray:
    """π₀ from a perm_before.json or a run folder; `AxisError` unless it is a permutation of exactly these rows."""
    perms = read_perm_record(path, mode)
    if set(perms) != {AXIS}:
        raise AxisError(
            f"{path} holds layouts of {', '.join(sorted(perms)) or 'nothing'}, not of a table's {AXIS!r}; "
            "give the permutations of a mock or trace run"
        )
    return check_permutation(perms[AXIS], size, f"axis {AXIS!r}")
