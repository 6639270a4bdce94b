"""Plan the stages of a run and execute them in order, each notebook in a fresh kernel."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from icd_lib.errors import ConfigError, IcdError, ResourceError
from icd_lib.execute.kernel_server import KernelServer, WarmServers
from icd_lib.execute.notebook import check_parameters, execute
from icd_lib.experiment.arms import MODES, ROWS
from icd_lib.paths import project_root, user_path
from icd_lib.progress import Screen
from icd_lib.run.artifacts import Run, locked_config, mend_log, run_folder, sweep_leftovers, write_lock
from icd_lib.run.configuration import Scenario
from icd_lib.run.manifest import write_manifest
from icd_lib.run.records import Records, snapshot
from icd_lib.stages import stage_modules
from icd_lib.storage.atomic import write_error
from icd_lib.workloads import kind_of

# Seconds of the bert scenario on two CPU cores, for the first estimate only; later ones come from earlier runs.
_TYPICAL_S = {
    "00_setup_check": 40,
    "01_build_graph": 90,
    "02_solve": 110,
    "03_measure": 260,
    "04_validate": 60,
    "05_report": 30,
}
_QUICK_SHARE = 0.15
_TABLE_SHARE = 0.06  # of a scenario that lays out a table of rows
_PLANNED_MODES = {"both": MODES, "iterative": ("oneshot", "iterative"), "linear": ("linear",)}


@dataclass(frozen=True)
class Stage:
    """One notebook execution: its name in logs, the notebook, the mode it gets, and the stages it reads from."""

    name: str
    notebook: str
    needs: tuple[str, ...]
    mode: str | None = None

    @property
    def target(self) -> str:
        """Where the executed notebook goes, relative to the run directory."""
        return f"{self.mode}/{self.notebook}.ipynb" if self.mode else f"{self.notebook}.ipynb"


def planned_modes(mode: str, config: Mapping) -> list[str]:
    """What --mode and a scenario's `codesign.arms` both name, in the order in which modes are solved.

    Raises `ConfigError` for an unknown mode, and where the two have nothing in common.
    """
    if mode not in _PLANNED_MODES:
        raise ConfigError(f"mode takes one of {', '.join(_PLANNED_MODES)}; got {mode!r}")
    arms = config.get("codesign", {}).get("arms", MODES)
    planned = [name for name in _PLANNED_MODES[mode] if name in arms]
    if not planned:
        raise ConfigError(f"mode {mode} solves none of codesign.arms, {', '.join(arms)}; name another or add it there")
    return planned


def plan_stages(mode: str = "both", measure: bool = True, config: Mapping | None = None) -> list[Stage]:
    """The stages of a run of a scenario's configuration, in order; `measure=False` stops before 03_measure.

    >>> [stage.name for stage in plan_stages("linear", measure=False)]
    ['00_setup_check', '01_build_graph', '02_solve[linear]']
    """
    first = ("00_setup_check", "01_build_graph")
    stages = [Stage(first[0], first[0], ()), Stage(first[1], first[1], first[:1])]
    stages += [Stage(f"02_solve[{m}]", "02_solve", first, m) for m in planned_modes(mode, config or {})]
    if measure:
        # Arms of earlier executions with the same configuration are measured too: they are on disk.
        before = (*first, *(f"02_solve[{m}]" for m in MODES))
        for name in ("03_measure", "04_validate", "05_report"):
            stages.append(Stage(name, name, before))
            before = (*before, name)
    return stages


def notebooks_folder() -> Path:
    """Where the project's notebooks are."""
    return project_root() / "notebooks"


def start_run(
    scenario: Scenario, out: str | Path = "outputs", *, mode: str = "both", resume: bool = False
) -> tuple[Run, bool]:
    """The run, and whether its folder held one already; nothing is written before `run_pipeline` holds the lock.

    With `resume`, a folder of another configuration is a `ConfigError`.
    """
    folder = run_folder(scenario, out)
    locked = locked_config(folder)
    if resume and locked is not None and locked.get("sha256") != scenario.sha256:
        changed = _differences(locked.get("config"), scenario.config)
        raise ConfigError(
            f"--resume: {folder} holds a run of another configuration ({changed}); "
            "give the same options as that run, another --out, or leave out --resume to replace it"
        )
    return Run(scenario, folder, mode, str(out)), locked is not None


def _differences(old, new, where: str = "") -> str:
    """The first few keys in which two configurations differ, as `key: old → new`."""
    found = []

    def walk(a, b, path):
        if isinstance(a, dict) and isinstance(b, dict):
            for key in [*a, *(k for k in b if k not in a)]:
                walk(a.get(key), b.get(key), f"{path}.{key}" if path else key)
        elif a != b:
            found.append(f"{path}: {a} → {b}")

    walk(old, new, where)
    return "; ".join(found[:3]) + (f"; {len(found) - 3} more" if len(found) > 3 else "")


def run_pipeline(
    run: Run,
    stages: list[Stage],
    *,
    force: bool = False,
    notebooks: Path | None = None,
    echo: Callable[[str], None] | None = None,
    servers: WarmServers | None = None,
) -> None:
    """Execute `stages` in order and skip the finished ones; raises the failing stage's `IcdError`.

    servers: where the kernels come from, which stay for the next run; None: from a server of this run.
    Every stage leaves its executed notebook, page, log line and record, also when it fails or is interrupted.
    """
    ahead = stage_modules(run) if notebooks is None else []  # what others' notebooks import is not known
    notebooks = notebooks or notebooks_folder()
    screen = Screen(len(stages))
    echo = echo or screen.say
    for stage in stages:
        check_parameters(notebooks / f"{stage.notebook}.ipynb", _parameters(run, stage))
    with only_one(run.dir), _kernels(ahead, servers) as server, contextlib.closing(screen):
        write_lock(run)
        _clean_up(run)
        records = Records.load(run, ignore_broken=force)
        _drop_other_configurations(records, echo)
        clock = Clock(stages, records, run.scenario.quick)
        for i, stage in enumerate(stages):
            source = notebooks / f"{stage.notebook}.ipynb"
            stale = "--force" if force else records.why_stale(stage.name, stage.needs, source)
            label = f"[{i + 1}/{len(stages)}] {stage.name}"
            if stale is None:
                echo(f"{label}  unchanged since it was run, skipped")
                clock.skip(stage.name)
                screen.stage(i + 1)
                continue
            echo(f"{label}  ({stale})  elapsed {clock.elapsed()}, about {clock.remaining()} to go")
            if stage.name == "05_report":
                write_manifest(run)
            seconds = _run_stage(
                run, stage, source, records, server, lambda line: echo(f"      {clock.elapsed()} | {line}")
            )
            clock.done(stage.name, seconds)
            screen.stage(i + 1)
            echo(f"{label}  done in {as_time(seconds)}")
        write_manifest(run)
    echo(f"all {len(stages)} stages done, elapsed {clock.elapsed()}")


def _parameters(run: Run, stage: Stage) -> dict:
    source = run.scenario.source
    if source.endswith((".yaml", ".yml")):  # notebooks run in the project root, wherever the command was given
        source = str(user_path(source).resolve())
    given = {
        "scenario": source,
        "overrides": list(run.scenario.overrides),
        "out": run.out,
        "quick": run.scenario.quick,
        "seed": run.scenario.seed,
    }
    return {**given, "mode": stage.mode} if stage.mode else given


def _kernels(ahead: list[str], servers: WarmServers | None) -> AbstractContextManager[KernelServer | None]:
    """Where the stages' kernels come from: a server on Linux that imports the modules `ahead` of them."""
    if sys.platform != "linux":
        return contextlib.nullcontext()  # libraries may not survive a fork there
    if servers is not None:
        return contextlib.nullcontext(servers.of(ahead, project_root()))
    return KernelServer(ahead, project_root())


def _run_stage(
    run: Run, stage: Stage, source: Path, records: Records, server: KernelServer | None, echo: Callable[[str], None]
) -> float:
    records.forget(stage.name)
    records.start(stage.name)
    before = snapshot(run.dir)
    began = time.monotonic()
    status, note = "failed", {"error": "E_INT_900"}
    try:
        execute(
            source,
            run.path(stage.target),
            _parameters(run, stage),
            cwd=project_root(),
            timeout_s=run.scenario.get("stage_timeout_s"),
            echo=echo,
            home="../index.html" if stage.mode else "index.html",
            server=server,
        )
        status, note = "done", {}
    except KeyboardInterrupt:
        status, note = "interrupted", {"error": "KeyboardInterrupt"}
        raise
    except IcdError as error:
        note = {"error": error.code, "message": str(error)}
        kept = run.dir / stage.target
        shown = f"\n  what was executed: {kept}" if kept.is_file() else ""
        again = run.command() + (f" --mode {run.mode}" if run.mode != "both" else "")
        raise type(error)(f"{error.args[0]}{shown}\n  when it is cured: {again} --resume") from error
    finally:
        elapsed_s = time.monotonic() - began
        records.finish(stage.name, status, elapsed_s, before, stage.needs, source)
        if status == "failed":
            _index_what_is_there(run)
        run.log(stage.name, status == "done", status=status, elapsed_s=round(elapsed_s, 3), **note)
    return elapsed_s


def _index_what_is_there(run: Run) -> None:
    """The index page of an unfinished run; in a process of its own, so that it cannot hide the stage's failure."""
    command = [sys.executable, "-m", "icd_lib.stages.report", str(run.dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project_root())
    if done.returncode:
        run.log("index", ok=False, message=done.stderr.strip().rpartition("\n")[2])


def _clean_up(run: Run) -> None:
    """Remove what a run that was killed in this folder left half-written, and say so in the log."""
    cut = mend_log(run.dir / "run.log")
    removed = sweep_leftovers(run.dir)
    if cut or removed:
        run.log("run", event="cleaned up after a run that was killed", files=removed, log_bytes=cut)


def _drop_other_configurations(records: Records, echo: Callable[[str], None]) -> None:
    """Files of an earlier configuration must not be mistaken for this one's."""
    old = [name for name, r in records.stages.items() if r.get("config_sha256") != records.run.scenario.sha256]
    removed = sum(records.forget(name) for name in old)
    if old:
        records.save()
        echo(f"the configuration changed: {removed} files of the earlier run in this folder are replaced")


@contextlib.contextmanager
def only_one(folder: Path, what: str = "run") -> Iterator[None]:
    """Hold a folder's lock: two runs writing into one folder would mix their files. It ends with its owner."""
    import fcntl

    path = folder / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(f"another {what} is writing to {folder}; wait for it or give another --out") from error
        yield


class Clock:
    """Elapsed and remaining time of a plan; estimates come from earlier runs, else from typical durations."""

    def __init__(self, stages: list[Stage], records: Records, quick: bool):
        self.began = time.monotonic()
        share = _QUICK_SHARE if quick else 1
        if kind_of(records.run).lays_out == ROWS:
            share = _TABLE_SHARE
        self.typical = {s.name: _TYPICAL_S.get(s.notebook, 60) * share for s in stages}
        self.known = {
            name: record["elapsed_s"]
            for name, record in records.stages.items()
            if record.get("status") == "done" and record.get("quick") == quick and _is_duration(record.get("elapsed_s"))
        }
        self.to_go = [stage.name for stage in stages]
        self.spent: dict[str, float] = {}

    def skip(self, name: str) -> None:
        """A stage need not run."""
        self.to_go.remove(name)

    def done(self, name: str, seconds: float) -> None:
        """A stage took this long."""
        self.to_go.remove(name)
        self.spent[name] = seconds

    def remaining_s(self) -> float:
        """Estimated seconds of the stages to go: as long as last time, else typical times this machine's pace."""
        typical = sum(self.typical[name] for name in self.spent)
        pace = sum(self.spent.values()) / typical if typical else 1.0
        return sum(self.known.get(name, self.typical[name] * pace) for name in self.to_go)

    def remaining(self) -> str:
        """`remaining_s` for people."""
        return as_time(self.remaining_s())

    def elapsed(self) -> str:
        """Time since the start, for people."""
        return as_time(time.monotonic() - self.began)


def _is_duration(seconds) -> bool:
    return seconds is not None and 0 <= seconds < 1e8  # three years


def as_time(seconds: float) -> str:
    """Minutes and seconds.

    >>> as_time(75.2), as_time(3700)
    ('1:15', '1:01:40')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
