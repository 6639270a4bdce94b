"""What became of a point: points.jsonl of the sweep's folder has a line for every end; a point's last one counts."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from icd_lib.errors import ArtifactError, ConfigError, IcdError, ResourceError, TransformError
from icd_lib.metric import Figure
from icd_lib.scrub.text import scrub_strings
from icd_lib.storage.atomic import plain, write_error
from icd_lib.storage.json_text import parse_text
from icd_lib.storage.record_json import from_json
from icd_lib.version import VERSION

FILE = "points.jsonl"
Status = Literal["done", "failed", "not_measured", "pruned", "not_run"]
STATUS_WORDS: dict[Status, str] = {
    "done": "done",
    "failed": "failed",
    "not_measured": "not measured",
    "pruned": "stopped: its quality fails",
    "not_run": "not run",
}
# What a point asks for and cannot be had here; any other error is a failure.
_NOT_TO_BE_HAD = (ConfigError, ResourceError, TransformError)


@dataclass(frozen=True, kw_only=True)
class ArmFigures:
    """An arm of a point, at the first shape.

    quality_drop_pp: on the text that the budget is for; other_drop_pp: on the other kind of text, seen or unseen.
    """

    latency_ms: Figure
    latency_vs_dense: Figure
    quality_drop_pp: Figure
    other_drop_pp: Figure
    peak_memory_mb: Figure
    energy_j_per_token: Figure
    parameter_bytes: int


class Setting(NamedTuple):
    """What points have in common that stand on one frontier; host: tells machines of one kind apart."""

    model: str
    shape: str
    machine: str
    host: str
    runtime: str


@dataclass(frozen=True, kw_only=True)
class Where:
    """What was measured where: model, calls, kind of machine and which of its kind, runtime."""

    model: str
    shape: str
    machine: str
    runtime: str = ""
    host: str = ""

    @property
    def setting(self) -> Setting:
        return Setting(self.model, self.shape, self.machine, self.host, self.runtime)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One line: how a point ended. reason: why it is not `done`; code: of the error; arms: figures of each arm."""

    point: str
    status: Status
    config_sha256: str = ""
    icd_version: str = VERSION
    elapsed_s: float = 0.0
    command: str = ""
    reason: str | None = None
    code: str | None = None
    where: Where | None = None
    gates: dict[str, str] = field(default_factory=dict)
    arms: dict[str, ArmFigures] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return self.status == "done"

    def but(self, **changes) -> "Outcome":
        """The same with some fields changed."""
        return replace(self, **changes)


def status_of(error: IcdError) -> Status:
    """`not_measured` where what a point asks for cannot be had here, else `failed`."""
    return "not_measured" if isinstance(error, _NOT_TO_BE_HAD) else "failed"


def append_outcome(folder: Path, outcome: Outcome) -> None:
    """Add a line, scrubbed; `ArtifactError` if it cannot be written."""
    path = folder / FILE
    line = json.dumps(scrub_strings(json.loads(json.dumps(outcome, default=plain))), ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(line.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise write_error(path, error) from error


def read_outcomes(folder: Path) -> dict[str, Outcome]:
    """Point → its last outcome; a last line that a kill cut off is none. `ArtifactError` for any other broken line."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"cannot read {path}: {error}; remove it, and finished points are found again") from error
    found = {}
    lines = text.split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        try:
            outcome = from_json(Outcome, parse_text(line), f"{path}, line {number}")
        except ValueError as error:
            raise ArtifactError(f"{path}, line {number} is not JSON; remove that line") from error
        found[outcome.point] = outcome
    return found
