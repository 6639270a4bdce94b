"""The run directory: where a run's files lie, and how they are written so that none is ever half there."""

import json
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.experiment.arms import MODES
from icd_lib.paths import project_root, user_path
from icd_lib.run.configuration import Scenario
from icd_lib.run.files import check_shape
from icd_lib.run.scenario import load_scenario
from icd_lib.scrub.text import scrub_strings
from icd_lib.storage.atomic import atomic_write, plain, to_json, write_error
from icd_lib.storage.json_text import read_text
from icd_lib.storage.record_json import from_json
from icd_lib.version import VERSION

T = TypeVar("T")
LOCK = "config.lock.json"
SHARED = ".shared"  # in the folder of a sweep, while it runs
_SEPARATORS = re.compile("[\x85\u2028\u2029]")  # JSON allows them in a text, but many readers end a line there
# What a run that was killed leaves beside its files: half-written ones, and notebooks that were being executed.
_LEFTOVER = re.compile(r"\..+\.(?:\d+\.tmp|running\.ipynb|[0-9a-f]{8}\.(?:partial|old))|.+\.safetensors\.partial")


def sweep_leftovers(folder: Path) -> int:
    """Remove what a killed run left half-written in a run folder; returns how many. Only while its lock is held."""
    leftovers = [path for path in folder.rglob("*") if _LEFTOVER.fullmatch(path.name)]
    for path in leftovers:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(path, error) from error
    return len(leftovers)


def mend_log(path: Path) -> int:
    """Cut off a log's last line if it was not written to its end; returns the bytes removed."""
    try:
        with open(path, "rb+") as file:
            text = file.read()
            end = text.rfind(b"\n") + 1
            if end < len(text):
                file.truncate(end)
            return len(text) - end
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise write_error(path, error) from error


@dataclass(frozen=True)
class Run:
    """One run of a scenario: its configuration, its folder, and reading and writing in it."""

    scenario: Scenario
    dir: Path
    mode: str = "both"
    out: str = "outputs"

    @property
    def shared(self) -> Path | None:
        """Where runs of one sweep leave for each other what holds for it alone; None of a run that is in none."""
        folder = self.dir.parent / SHARED
        return folder if folder.is_dir() else None

    def path(self, *parts: str) -> Path:
        """Path inside the run directory; its folder is created."""
        path = self.dir.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path.parent, error) from error
        return path

    def write_json(self, rel: str, value) -> Path:
        """Write `value` as JSON, atomically."""
        return atomic_write(self.path(rel), to_json(value))

    def read_json(self, rel: str):
        """Read a JSON file of this run; `ArtifactError` with the cure if it is missing, truncated or not JSON."""
        path = self.dir / rel
        try:
            return check_shape(read_text(path), rel, str(path))
        except FileNotFoundError as error:
            raise ArtifactError(f"{path} is missing; make it with: {self.command()} --resume") from error
        except ValueError as error:
            raise ArtifactError(
                f"{path} is truncated or not JSON ({error}); make it again with: {self.command()} --force"
            ) from error
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}") from error

    def read(self, kind: type[T], rel: str) -> T:
        """A JSON file of this run as a record; `ArtifactError` as `read_json`."""
        return from_json(kind, self.read_json(rel), str(self.dir / rel))

    def log(self, stage: str, ok: bool = True, **meta) -> None:
        """Append one JSON line {ts, stage, ok, meta} to run.log; paths and host names are scrubbed."""
        entry = {"ts": datetime.now(UTC).isoformat(timespec="milliseconds"), "stage": stage, "ok": bool(ok)}
        entry["meta"] = scrub_strings(meta)
        line = json.dumps(entry, ensure_ascii=False, default=plain) + "\n"
        line = _SEPARATORS.sub(lambda separator: f"\\u{ord(separator[0]):04x}", line)
        path = self.path("run.log")
        try:
            with open(path, "ab") as file:  # one write at the end: what two processes log is never mixed in a line
                file.write(line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise write_error(path, error) from error

    def command(self) -> str:
        """The command line that makes this run again."""
        words = ["python run_all.py", _option("--scenario", self.scenario.source)]
        words += [_option("--override", override) for override in self.scenario.overrides]
        words += ["--quick"] if self.scenario.quick else []
        words += [f"--seed {self.scenario.seed}"] if self.scenario.seed is not None else []
        words += [_option("--out", self.out)] if self.out != "outputs" else []
        return " ".join(words)


def _option(name: str, value: str) -> str:
    """An option for a shell; a value that looks like an option itself is tied to its name."""
    return shlex.quote(f"{name}={value}") if value.startswith("-") else f"{name} {shlex.quote(value)}"


def run_folder(scenario: Scenario, out: str | Path = "outputs") -> Path:
    """Folder of a run, not created: `<out>/<scenario>`, a relative `out` counted from the project root."""
    return project_root() / user_path(out) / scenario.name


def open_run(
    scenario: str | Path | Scenario,
    overrides: Iterable[str] = (),
    out: str | Path = "outputs",
    quick: bool = False,
    seed: int | None = None,
    mode: str = "both",
) -> Run:
    """Validate the scenario, make its folder, write `config.lock.json` if it changed, and return the `Run`."""
    if mode not in (*MODES, "both"):
        raise ConfigError(f"mode takes one of {', '.join(MODES)} or both; got {mode!r}")
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario, overrides, quick=quick, seed=seed)
    run = Run(scenario, run_folder(scenario, out), mode, str(out))
    write_lock(run)
    return run


def write_lock(run: Run) -> None:
    """Write the run's `config.lock.json` unless it is there already."""
    scenario = run.scenario
    lock = scrub_strings(
        {
            "scenario": scenario.name,
            "sha256": scenario.sha256,
            "quick": scenario.quick,
            "overrides": list(scenario.overrides),
            "icd_version": VERSION,
            "config": scenario.config,
        }
    )
    if locked_config(run.dir) != lock:
        run.write_json(LOCK, lock)


def locked_config(folder: Path) -> dict | None:
    """What `config.lock.json` in a run folder says, None where there is none or it is unreadable."""
    try:
        lock = read_text(folder / LOCK)
    except (OSError, ValueError):
        return None
    return lock if isinstance(lock, dict) else None
