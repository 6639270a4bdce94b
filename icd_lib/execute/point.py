"""One point of a sweep, run here: wholly, or in the parts that a cluster hands to its workers."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from icd_lib.errors import IcdError
from icd_lib.execute.kernel_server import WarmServers
from icd_lib.execute.pipeline import Stage, plan_stages, planned_modes, run_pipeline, start_run
from icd_lib.run.artifacts import Run
from icd_lib.run.configuration import Scenario
from icd_lib.storage.machine import this_machine
from icd_lib.sweeps.collect import arms_of, gates_of, lost_where_chosen, where_of
from icd_lib.sweeps.options import PruneOptions
from icd_lib.sweeps.outcome import Outcome, status_of
from icd_lib.sweeps.plan import Point
from icd_lib.sweeps.prune import too_much

Part = Literal["begin", "solve", "measure", "report"]
PARTS: tuple[Part, ...] = ("begin", "solve", "measure", "report")
TIMED: tuple[Part, ...] = ("begin", "measure")  # what times the machine: its width curves, and the arms


@dataclass(frozen=True)
class Job:
    """A point, and how it is run. folder: the sweep's, absolute; out: the same for `--out` of the point's command."""

    point: Point
    folder: Path
    out: str
    mode: str = "both"
    quick: bool = False
    force: bool = False
    notebooks: Path | None = None

    def scenario(self) -> Scenario:
        return self.point.scenario(self.quick)

    def stages(self, part: Part) -> list[Stage]:
        """The stages of a part."""
        config = self.scenario().config
        every, solved = plan_stages(self.mode, config=config), len(plan_stages(self.mode, False, config))
        bounds = {
            "begin": (0, 2),
            "solve": (2, solved),
            "measure": (solved, solved + 1),
            "report": (solved + 1, len(every)),
        }[part]
        return every[slice(*bounds)]

    def anew(self) -> "Job":
        """The same from its first stage on, whatever is finished."""
        return replace(self, force=True)

    def lost(self) -> tuple[float, float] | None:
        """What its result lost where strengths are chosen; None before it is solved, and where nothing was judged."""
        return lost_where_chosen(self.folder / self.point.name, planned_modes(self.mode, self.scenario().config)[-1])

    def run(
        self,
        run: Run,
        parts: tuple[Part, ...],
        echo: Callable[[str], None] | None = None,
        servers: WarmServers | None = None,
    ) -> None:
        """Execute the stages of these parts that are not finished, in kernels of `servers`."""
        stages = [stage for part in parts for stage in self.stages(part)]
        run_pipeline(run, stages, force=self.force, notebooks=self.notebooks, echo=echo, servers=servers)


def attempt(job: Job, act: Callable[[Run], str | None]) -> Outcome:
    """Let `act` work on the job's run; whatever happens has an outcome, but an interrupt. act: why it stopped early."""
    began, scenario, run = time.monotonic(), None, None
    ended: dict[str, Any]
    try:
        scenario = job.scenario()
        run, _ = start_run(scenario, job.folder, mode=job.mode)
        stopped = act(run)
        ended = {"status": "pruned", "reason": stopped} if stopped else {"status": "done"}
    except IcdError as error:
        first = str(error.args[0]).partition("\n")[0]
        ended = {"status": status_of(error), "reason": first, "code": error.code}
    except Exception as error:  # a bug in one point must not take the others' time with it; it is on the page
        traceback.print_exc()
        ended = {"status": "failed", "reason": f"{type(error).__name__}: {error}", "code": "E_INT_900"}
    command = replace(run, out=job.out).command() if run else ""
    ended |= {"config_sha256": scenario.sha256 if scenario else "", "command": command}
    return Outcome(point=job.point.name, elapsed_s=round(time.monotonic() - began, 3), **ended)


def stopped(job: Job, reason: str) -> Outcome:
    """The end of a solved point that is not worth its measurement."""
    return attempt(job, lambda run: reason)


def run_whole(job: Job, prune: PruneOptions | None = None, servers: WarmServers | None = None) -> Outcome:
    """The point from its first stage to its figures; `prune`: it stops before its measurement if it lost too much."""

    def act(run: Run) -> str | None:
        if prune is None:
            job.run(run, PARTS, servers=servers)
            return None
        job.run(run, ("begin", "solve"), servers=servers)
        if reason := too_much(job.lost(), prune):
            return reason
        job.run(run, ("measure", "report"), servers=servers)
        return None

    return with_figures(job, attempt(job, act))


def with_figures(job: Job, outcome: Outcome) -> Outcome:
    """A `done` outcome with the figures of the run's files, which this machine has measured."""
    if not outcome.is_done:
        return outcome
    folder = job.folder / job.point.name
    found: dict[str, Any]
    try:
        where = replace(where_of(folder), host=this_machine())
        found = {"arms": arms_of(folder), "where": where, "gates": gates_of(folder)}
    except IcdError as error:
        found = {"status": status_of(error), "reason": str(error.args[0]), "code": error.code}
    return outcome.but(**found)
