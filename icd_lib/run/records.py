"""stages.json: what each stage of a run read and wrote, so that a finished stage is not run again for nothing."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.paths import unsafe_name
from icd_lib.run.artifacts import Run
from icd_lib.storage.atomic import atomic_write, sha256_file, to_json, write_error
from icd_lib.version import VERSION

FILE = "stages.json"
_NOT_OUTPUTS = {FILE, "run.log", "manifest.json", "manifest.txt", "config.lock.json"}
# Where stages write: a person's own file elsewhere in the folder is nobody's to remove. Kept layouts lie under the hash
# of what they were solved from and can stay.
_WRITTEN_BY_STAGES = re.compile(
    r"(?:setup|graph|dense|linear|oneshot|iterative|measure|figures)/.+|(?:index|report)\.\w+|verdict\.json|0\d_\w+\.\w+"
)
_NOT_INPUTS = (".ipynb", ".html", ".png")  # for people; a later stage does not read them


@dataclass
class Records:
    """The records of one run directory; `stages` maps a stage's name to {status, elapsed_s, input, outputs, …}."""

    run: Run
    stages: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def load(cls, run: Run, *, ignore_broken: bool = False) -> "Records":
        """Read stages.json; a broken one is an `ArtifactError` unless `ignore_broken`."""
        if not (run.dir / FILE).exists():
            return cls(run)
        try:
            stages = run.read_json(FILE)["stages"]
            for record in stages.values():
                _check_names(record, run.dir / FILE)
        except ArtifactError:
            if ignore_broken:
                return cls(run)
            raise
        return cls(run, stages)

    def save(self) -> None:
        """Write stages.json, atomically."""
        atomic_write(self.run.path(FILE), to_json({"icd_version": VERSION, "stages": self.stages}))

    def input_digest(self, needs: tuple[str, ...], notebook: Path) -> str:
        """sha256 over the configuration, ICD's version, the notebook and the outputs of the stages in `needs`."""
        upstream = {
            name: {rel: sha for rel, sha in sorted(self.outputs(name).items()) if not rel.endswith(_NOT_INPUTS)}
            for name in sorted(needs)
            if self.is_done(name)
        }
        parts = [self.run.scenario.sha256, VERSION, sha256_file(notebook), upstream]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def outputs(self, name: str) -> dict[str, str]:
        """Relative path → sha256 of what a stage wrote."""
        return self.stages.get(name, {}).get("outputs") or {}

    def is_done(self, name: str) -> bool:
        """Whether the stage finished, under this configuration."""
        record = self.stages.get(name, {})
        return record.get("status") == "done" and record.get("config_sha256") == self.run.scenario.sha256

    def why_stale(self, name: str, needs: tuple[str, ...], notebook: Path) -> str | None:
        """Why a stage has to run, None if it is finished and neither its inputs nor its outputs changed."""
        if not (record := self.stages.get(name)):
            return "not run yet"
        if record.get("status") != "done":
            return f"{record.get('status', 'unfinished')} last time"
        if record.get("config_sha256") != self.run.scenario.sha256:
            return "the configuration changed"
        if record.get("input") != self.input_digest(needs, notebook):
            return "its inputs changed"
        for rel, sha in self.outputs(name).items():
            path = self.run.dir / rel
            if not path.is_file():
                return f"{rel} is gone"
            if sha256_file(path) != sha:
                return f"{rel} was changed"
        return None

    def forget(self, name: str) -> int:
        """Delete the files that a stage recorded as its own, and its record; returns how many there were.

        Of a stage that was killed these are the files that have changed since it began and are no other stage's.
        """
        removed = 0
        for rel in [*self.outputs(name), *self._unrecorded(name)]:
            path = self.run.dir / rel
            if path.parent.resolve().is_relative_to(self.run.dir.resolve()) and ".." not in Path(rel).parts:
                try:
                    path.unlink()
                    removed += 1
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise write_error(path, error) from error
        self.stages.pop(name, None)
        return removed

    def _unrecorded(self, name: str) -> list[str]:
        """What a stage that was killed before it could record its files has written."""
        before = self.stages.get(name, {}).get("before")
        if before is None:
            return []
        others = {rel for other in self.stages for rel in self.outputs(other)}
        changed = [rel for rel, state in snapshot(self.run.dir).items() if before.get(rel) != list(state)]
        return [rel for rel in changed if rel not in others and _WRITTEN_BY_STAGES.fullmatch(rel)]

    def start(self, name: str) -> None:
        """Note that a stage runs now, and what was there before: should it be killed, it is not taken for finished."""
        before = {rel: list(state) for rel, state in snapshot(self.run.dir).items()}
        self.stages[name] = {"status": "running", "config_sha256": self.run.scenario.sha256, "before": before}
        self.save()

    def finish(self, name: str, status: str, elapsed_s: float, before: dict, needs: tuple[str, ...], notebook: Path):
        """Record how a stage ended and what it wrote since the snapshot `before`.

        A file that another stage made and this one added to stays the other's, with its new hash.
        """
        changed = [rel for rel, state in snapshot(self.run.dir).items() if before.get(rel) != state]
        outputs = {rel: sha256_file(self.run.dir / rel) for rel in sorted(changed)}
        for other in self.stages.values():
            for rel in (other.get("outputs") or {}).keys() & outputs.keys():
                other["outputs"][rel] = outputs.pop(rel)
        self.stages[name] = {
            "status": status,
            "elapsed_s": round(elapsed_s, 3),
            "quick": self.run.scenario.quick,
            "config_sha256": self.run.scenario.sha256,
            "input": self.input_digest(needs, notebook),
            "outputs": outputs,
        }
        self.save()


def _check_names(record: dict, where: Path) -> None:
    """Raise `ArtifactError` unless every output has a name that a file in the run's folder can have."""
    for rel in record.get("outputs") or {}:
        if (why := unsafe_name(rel)) or max(len(part.encode()) for part in rel.split("/")) > 255:
            raise ArtifactError(f"{where} names the output {rel[:80]!r}, which {why or 'is too long'}; use --force")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Relative path → (mtime in ns, size) of every file that can be a stage's output."""
    states = {}
    for path in folder.rglob("*"):
        rel = path.relative_to(folder)
        if path.is_file() and rel.as_posix() not in _NOT_OUTPUTS and not any(p.startswith(".") for p in rel.parts):
            state = path.stat()
            states[rel.as_posix()] = (state.st_mtime_ns, state.st_size)
    return states
