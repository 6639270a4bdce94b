"""stages.json: what each stage of a run read and wrote, so that a finished stage is not run again for nothing."""

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from icd_lib.artifacts import Run, atomic_write, sha256_file, to_json
from icd_lib.errors import ArtifactError
from icd_lib.version import VERSION

FILE = "stages.json"
_NOT_OUTPUTS = {FILE, "run.log", "manifest.json", "manifest.txt", "config.lock.json"}
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
            stages = run.read_json(FILE).get("stages")
        except (ArtifactError, AttributeError) as error:
            if ignore_broken:
                return cls(run)
            raise ArtifactError(f"{run.dir / FILE} is damaged; run everything again with --force") from error
        if not isinstance(stages, dict) or not all(isinstance(record, dict) for record in stages.values()):
            raise ArtifactError(f"{run.dir / FILE} is damaged; run everything again with --force")
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
        return self.stages.get(name, {}).get("outputs", {})

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
        """Delete the files that a stage recorded as its own, and its record; returns how many there were."""
        removed = 0
        for rel in self.outputs(name):
            if (self.run.dir / rel).is_relative_to(self.run.dir) and ".." not in Path(rel).parts:
                with contextlib.suppress(FileNotFoundError):
                    (self.run.dir / rel).unlink()
                    removed += 1
        self.stages.pop(name, None)
        return removed

    def start(self, name: str) -> None:
        """Note that a stage runs now: should the machine go down, it is not taken for finished."""
        self.stages[name] = {"status": "running", "config_sha256": self.run.scenario.sha256}
        self.save()

    def finish(self, name: str, status: str, elapsed_s: float, before: dict, needs: tuple[str, ...], notebook: Path):
        """Record how a stage ended and what it wrote since the snapshot `before`.

        A file that another stage made and this one added to stays the other's, with its new hash.
        """
        changed = [rel for rel, state in snapshot(self.run.dir).items() if before.get(rel) != state]
        outputs = {rel: sha256_file(self.run.dir / rel) for rel in sorted(changed)}
        for other in self.stages.values():
            for rel in other.get("outputs", {}).keys() & outputs.keys():
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


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Relative path → (mtime in ns, size) of every file that can be a stage's output."""
    found = {}
    for path in folder.rglob("*"):
        rel = path.relative_to(folder)
        if path.is_file() and rel.as_posix() not in _NOT_OUTPUTS and not any(p.startswith(".") for p in rel.parts):
            state = path.stat()
            found[rel.as_posix()] = (state.st_mtime_ns, state.st_size)
    return found
