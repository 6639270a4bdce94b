"""Run a sweep's points, each as run_all.py would; what became of each is kept as it ends."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from icd_lib.errors import ArtifactError, ConfigError, IcdError
from icd_lib.execute.kernel_server import WarmServers
from icd_lib.execute.notebook import execute
from icd_lib.execute.pipeline import as_time, notebooks_folder, only_one, planned_modes
from icd_lib.execute.point import Job, run_whole
from icd_lib.execute.where import Place, chosen_place
from icd_lib.experiment.arms import DENSE
from icd_lib.options.option import plain
from icd_lib.paths import project_root, user_path
from icd_lib.records.verdict import VERDICT
from icd_lib.run.artifacts import LOCK, SHARED, locked_config, mend_log
from icd_lib.scrub.text import scrub_strings
from icd_lib.storage.atomic import atomic_write, is_full, to_json, write_error
from icd_lib.storage.record_json import as_json
from icd_lib.sweeps.outcome import FILE as OUTCOMES
from icd_lib.sweeps.outcome import Outcome, append_outcome, read_outcomes
from icd_lib.sweeps.page import NOTEBOOK
from icd_lib.sweeps.plan import Point, Sweep, sweep_of
from icd_lib.sweeps.prune import ruled_out, too_much
from icd_lib.sweeps.result import FILE, Planned, PlannedPoint, SweepResult
from icd_lib.version import VERSION

PAGES_TIMEOUT_S = 1800.0


def sweep(
    base: str | Path | list | Mapping,
    grid: Mapping,
    cluster: str | None = None,
    *,
    name: str = "sweep",
    out: str | Path = "outputs",
    overrides: Iterable[str] = (),
    repeat: Iterable[int] = (),
    budget_minutes: float | None = None,
    prune: Mapping | None = None,
    mode: str = "both",
    quick: bool = False,
    force: bool = False,
    yes: bool = False,
) -> SweepResult:
    """Run every point of `grid` over the scenario `base` and return what became of them (`docs/SWEEPS.md`).

    base: name or file of a scenario, several, or name → options of that base alone; grid: option → its values, or a
    name of one's own → level → options; cluster: None runs one point after the other here; "auto" starts workers where
    that pays, as the command line does; "local" starts them; the address of a Dask scheduler ("tcp://host:8786") or its
    scheduler file takes its workers. Points lie in `<out>/<name>/<point>/`, and those that are finished with the same
    configuration are not run again. Raises `ConfigError` before anything runs, `ResourceError` where there is no such
    cluster, `ArtifactError` where the disk is full; a point that fails is in the result with its reason.
    """
    given: dict = {"base": str(base) if isinstance(base, Path) else base, "grid": grid, "repeat": list(repeat)}
    given |= {"budget_minutes": budget_minutes} | ({} if prune is None else {"prune": prune})
    planned = sweep_of(given, name, None, overrides, quick=quick, yes=yes)
    return run_sweep(planned, out, mode=mode, force=force, cluster=cluster)


def sweep_folder(planned: Sweep, out: str | Path = "outputs") -> Path:
    """Folder of a sweep, not created; `ConfigError` where a run of a scenario lies there."""
    folder = project_root() / user_path(out) / planned.name
    if (folder / LOCK).is_file():
        raise ConfigError(
            f"{folder} holds a run of a scenario; give the sweep another name ('sweep:') or another --out"
        )
    return folder


def run_sweep(
    planned: Sweep,
    out: str | Path = "outputs",
    *,
    mode: str = "both",
    force: bool = False,
    cluster: str | None = None,
    notebooks: Path | None = None,
    echo: Callable[[str], None] = print,
) -> SweepResult:
    """Run what is not finished, in order or on a cluster (`chosen_place`), and write the sweep's pages.

    A point that fails ends with its reason, and the next one begins. Raises `ResourceError` if another sweep writes
    into the folder or there is no such cluster, `ArtifactError` if that cannot be written; KeyboardInterrupt goes
    through.
    """
    folder = sweep_folder(planned, out)
    with only_one(folder, "sweep"):
        mend_log(folder / OUTCOMES)
        atomic_write(folder / FILE, to_json(scrub_strings(as_json(_record(planned)))))
        course = Course(planned, folder, echo)
        shown = str(Path(out) / planned.name)
        jobs = [Job(point, folder, shown, mode, planned.quick, force, notebooks) for point in planned.points]
        waiting = [job for job in jobs if not course.keep(job)]
        place = chosen_place(cluster, waiting, echo) if waiting else Place()
        with shared_folder(folder):
            if place.cluster is None:
                with WarmServers() as servers:
                    for job in waiting:
                        course.end(job, course.ruled_out(job) or run_whole(job, planned.options.prune, servers))
            else:
                from icd_lib.execute.cluster import connected, run_parts

                with connected(place.cluster, place.workers, place.devices) as client:
                    run_parts(client, waiting, course)
        write_pages(folder, notebooks, echo)
    return SweepResult.load(folder)


@contextlib.contextmanager
def shared_folder(folder: Path) -> Iterator[None]:
    """Inside the block the sweep has a place for what its runs leave for each other; it begins empty."""
    place = folder / SHARED
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.mkdir()
    except OSError as error:
        raise write_error(place, error) from error
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


class Course:
    """How far a sweep is: what is kept of earlier, what ended how, whether there is time, and who lost too much."""

    def __init__(self, planned: Sweep, folder: Path, echo: Callable[[str], None] = print):
        self.planned, self.folder, self.echo = planned, folder, echo
        self.began, self.known = time.monotonic(), read_outcomes(folder)
        self.places = {point.name: number for number, point in enumerate(planned.points, 1)}
        self.lost: list[Point] = []

    def keep(self, job: Job) -> bool:
        """Whether the point need not be run again: it is done, with this configuration and these modes."""
        outcome = None if job.force else self.known.get(job.point.name)
        if outcome is None or not outcome.is_done or outcome.icd_version != VERSION:
            return False
        try:
            scenario = job.scenario()
            modes, sha256 = planned_modes(job.mode, scenario.config), scenario.sha256
        except IcdError:  # running it says why
            return False
        if not {DENSE, *modes} <= outcome.arms.keys():
            return False
        lock = locked_config(self.folder / job.point.name) or {}
        there = (self.folder / job.point.name / VERDICT).is_file() and lock.get("sha256") == sha256
        if not there or outcome.config_sha256 != sha256:
            return False
        self.echo(f"{self.label(job)}  done before with this configuration, kept")
        self._note(job, outcome)
        return True

    def ruled_out(self, job: Job, *, is_begun: bool = False) -> Outcome | None:
        """The end of a point that need not go on: a weaker one lost too much, or, if not begun, the time is over."""
        most, prune, name = self.planned.options.budget_minutes, self.planned.options.prune, job.point.name
        if most is not None and not is_begun and time.monotonic() - self.began >= 60 * most:
            return Outcome(point=name, status="not_run", reason=f"the budget of {most:g} minutes was spent")
        if prune and (weaker := ruled_out(job.point, self.lost, prune.along, self.planned.factors)):
            return Outcome(point=name, status="pruned", reason=f"a stronger form of {weaker.name}, which lost too much")
        self.echo(f"{self.label(job)}  elapsed {as_time(time.monotonic() - self.began)}")
        return None

    def end(self, job: Job, outcome: Outcome) -> None:
        """Keep how a point ended, and say it; `ArtifactError` where the disk is full: all others would fail too."""
        append_outcome(self.folder, outcome)
        self._note(job, outcome)
        told = f": {outcome.reason}" if outcome.reason else ""
        self.echo(f"{self.label(job)}  {outcome.status} after {as_time(outcome.elapsed_s)}{told}")
        if outcome.code == ArtifactError.code and is_full(outcome.reason or ""):
            raise ArtifactError(f"{self.label(job)}: {outcome.reason}; the same command goes on with it and the others")

    def label(self, job: Job) -> str:
        """Number and name of a point."""
        return f"[{self.places[job.point.name]}/{len(self.places)}] {job.point.name}"

    def _note(self, job: Job, outcome: Outcome) -> None:
        prune = self.planned.options.prune
        if prune and outcome.status in ("done", "pruned") and too_much(job.lost(), prune):
            self.lost.append(job.point)


def write_pages(folder: Path, notebooks: Path | None, echo: Callable[[str], None]) -> None:
    """Execute the sweep's notebook, which writes its pages; a stand-in's folder need not have one of its own."""
    source = (notebooks or notebooks_folder()) / f"{NOTEBOOK}.ipynb"
    if not source.is_file():
        source = notebooks_folder() / source.name
    execute(
        source,
        folder / source.name,
        {"folder": str(folder)},
        cwd=project_root(),
        timeout_s=PAGES_TIMEOUT_S,
        echo=lambda line: echo(f"      {line}"),
    )


def _record(planned: Sweep) -> Planned:
    return Planned(
        sweep=planned.name,
        icd_version=VERSION,
        quick=planned.quick,
        factors={name: list(levels) for name, levels in planned.factors.items()},
        points=[
            PlannedPoint(
                name=point.name,
                levels=point.levels,
                source=Path(point.source).name,
                overrides=list(point.overrides),
                merged=list(point.merged),
            )
            for point in planned.points
        ],
        options=plain(planned.options),
    )
