"""Everything a run directory holds so far; what is not there (yet) is None or empty."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.experiment.arms import ARMS as ALL_ARMS
from icd_lib.experiment.arms import DENSE, MODES, ROWS, workload_of
from icd_lib.experiment.comparisons import judged_names
from icd_lib.metric import Figure
from icd_lib.records.attempts import Attempt, Round, Solved, Tried
from icd_lib.records.counted import ENERGY, NCU, POWER, BoardEnergy, Counted, Reading, from_csv
from icd_lib.records.deploy import Deploy
from icd_lib.records.losses import DEPLOYED, SplitLoss
from icd_lib.records.measured import LADDER, MEASURED, Ladder, Measured, Timing
from icd_lib.records.verdict import VERDICT, Verdict
from icd_lib.run.artifacts import LOCK
from icd_lib.run.files import as_record, check_shape
from icd_lib.runtimes import CUDA_REFERENCE, REFERENCE
from icd_lib.storage.devices import CPU
from icd_lib.storage.json_text import read_text
from icd_lib.storage.record_json import from_json

ARMS = (DENSE, *MODES)  # that metrics.json and the tables are about; controls stand beside them


@dataclass(frozen=True)
class Fastest:
    """The runtime in which iterative takes least time at a shape: its figures there, and what is lost in it.

    lost: arm → loss; None with the `reason` why that was not judged
    """

    label: str
    latency_ms: Figure
    vs_eager: Figure
    lost: dict[str, SplitLoss] | None
    reason: str | None


@dataclass(frozen=True)
class Results:
    """The JSON files of one run directory, read once."""

    dir: Path
    lock: dict | None = None
    setup: dict | None = None
    graphs: dict | None = None
    tables: dict | None = None
    sensitivity: list | None = None
    prediction: dict | None = None
    solves: dict[str, Solved] = field(default_factory=dict)
    measure: Measured | None = None
    samples: dict | None = None
    ladder: Ladder | None = None
    verdict: Verdict | None = None
    calibration: dict | None = None
    counted: Counted | None = None
    board_energy: BoardEnergy | None = None
    manifest: dict | None = None
    stages: dict = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path | str) -> "Results":
        """Read what is there; a file that is there but damaged is an `ArtifactError`."""
        folder = Path(folder)
        solves = {mode: _record(folder, f"{mode}/solve.json") for mode in MODES}
        return cls(
            dir=folder,
            lock=_read(folder, LOCK),
            setup=_read(folder, "setup/setup.json"),
            graphs=_read(folder, "graph/w.meta.json"),
            tables=_read(folder, "graph/tables.json"),
            sensitivity=_read(folder, "graph/sensitivity.json"),
            prediction=_read(folder, "graph/prediction.json"),
            solves={mode: solve for mode, solve in solves.items() if solve},
            measure=_record(folder, MEASURED),
            samples=_read(folder, "measure/samples.json"),
            ladder=_record(folder, LADDER),
            verdict=_record(folder, VERDICT),
            calibration=_read(folder, "graph/calibration.json"),
            counted=_record(folder, NCU),
            board_energy=_record(folder, ENERGY),
            manifest=_read(folder, "manifest.json"),
            stages=(_read(folder, "stages.json") or {}).get("stages", {}),
        )

    @property
    def scenario(self) -> str:
        return self.lock["scenario"] if self.lock else self.dir.name

    @property
    def badges(self) -> list[str]:
        """Warnings that stand on top of every page; a quick run says so even before its first stage has finished."""
        return [text for texts in self._badges.values() for text in texts]

    def badges_about(self, *subjects: str) -> list[str]:
        """The first words of the badges on `subjects` ("model", "layout", "timing"), and of those on the whole run."""
        texts = [text for subject in ("run", *subjects) for text in self._badges[subject]]
        return list(dict.fromkeys(text.partition(":")[0] for text in texts))

    @property
    def _badges(self) -> dict[str, list[str]]:
        texts = {"run": [], "model": [], "layout": [], "timing": self.timing_badges}
        setup = self.setup or {}
        for text in setup.get("badges", []):
            about = setup.get("badge_subjects", {}).get(text)
            texts[about if about in texts else "run"].append(text)
        if self.lock and self.lock.get("quick") and not self.setup:
            texts["run"].append("quick run: figures are rough")
        late = [mode for mode, solve in self.solves.items() if any(one.timed_out for one in solve.solver.values())]
        if late:
            texts["layout"].append(f"solver time-out: the best layout found so far was taken ({', '.join(late)})")
        return texts

    @property
    def timing_badges(self) -> list[str]:
        """What has to be known of the circumstances of the timing."""
        if self.measure is None:
            return []
        latency = self.measure.latency
        warnings = [warning for taken in latency.taken.values() for warning in taken.warnings]
        if latency.clocks and not latency.clocks.locked:
            warnings.append(f"unlocked: {latency.clocks.reason}")
        if self.board_energy:
            warnings += self.board_energy.warnings
        return list(dict.fromkeys(warnings))

    @property
    def config(self) -> dict:
        return self.lock["config"] if self.lock else {}

    @property
    def is_table(self) -> bool:
        """Whether the run lays out a table of rows and not a model."""
        return self.workload == ROWS

    @property
    def workload(self) -> str:
        """What the run lays out: "model" or "rows"."""
        return workload_of(self.config)

    @property
    def reference(self) -> str:
        """What every arm is compared with, in words."""
        return ALL_ARMS[DENSE].words[self.workload]

    @property
    def first_shape(self) -> str:
        """What was timed first, which the gates judge, in words."""
        if self.is_table:
            return "chained reads of unseen events"
        return next(iter(self.shapes), "the first shape").replace("x", " × ") + " tokens"

    @property
    def shapes(self) -> dict[str, dict[str, Timing]]:
        """Shape label → arm → latency figures; empty before the measurement."""
        return self.measure.latency.shapes if self.measure else {}

    @property
    def arms(self) -> list[str]:
        """The compared arms that were measured, in the usual order."""
        return [arm for arm in ARMS if self.measure and arm in self.measure.sizes]

    @property
    def quality_reason(self) -> str | None:
        """Why there is no quality, None where there is."""
        if not self.measure:
            return "03_measure has not finished"
        return self.measure.quality.reason

    @property
    def judging(self) -> str:
        """The split that the quality budget is for: "unseen" or "seen" text."""
        return "seen" if self.config.get("codesign", {}).get("budget_on") == "seen" else "unseen"

    @property
    def splits(self) -> list[str]:
        """The splits that were judged, the budget's first; empty where quality was not measured."""
        if self.quality_reason:
            return []
        return sorted(self.measure.quality.dense, key=lambda split: split != self.judging)

    @property
    def deploy(self) -> Deploy | None:
        """Where the models are deployed; None in a run of before that was asked, and for a table of rows."""
        entry = (self.setup or {}).get("deploy")
        return from_json(Deploy, entry, "setup/setup.json") if entry else None

    @property
    def on_gpu(self) -> bool:
        """Whether the run computed on a GPU."""
        return ((self.setup or {}).get("device") or {}).get("name", CPU) != CPU

    @property
    def eager(self) -> str:
        """The reference runtime in words."""
        if not self.on_gpu:
            return "PyTorch eager, fp32"
        in_bf16 = self.config.get("model", {}).get("dtype") == "bfloat16"
        return f"PyTorch eager on CUDA, {'bf16' if in_bf16 else 'fp32'}"

    @property
    def in_eager(self) -> bool:
        """Whether the arms were timed in PyTorch eager at fp32, with which all else is compared."""
        return self.deploy is None or self.deploy.runtime in (REFERENCE, CUDA_REFERENCE)

    @property
    def deployed(self) -> str | None:
        """Where the arms were timed, if that is not PyTorch as it is."""
        return self.deploy.label if self.deploy and self.deploy.runtime != REFERENCE else None

    def lost(self, arm: str) -> dict[str, SplitLoss]:
        """Split → what an arm loses against dense in the reference runtime; empty where it was not judged.

        Of dense itself it is what rounding loses, where it is deployed in a runtime that rounds.
        """
        judged = DEPLOYED if arm == DENSE else arm
        losses = {} if self.quality_reason else self.measure.quality.lost.get(judged, {})
        return {split: losses[split] for split in self.splits if split in losses}

    @property
    def is_language(self) -> bool:
        """Whether a language model was judged: it has a perplexity and no embedding."""
        return any(entry.perplexity_ratio for arm in ARMS for entry in self.lost(arm).values())

    @property
    def gates_comparison(self) -> str:
        """The section of the verdict that the gates judge."""
        named = self.verdict.gates_comparison
        return named if named in judged_names() else "same_transform"

    def attempts(self, mode: str) -> list[Attempt]:
        """The drafts and attempts of a mode; none on a table of rows."""
        return [entry for entry in self.solves[mode].attempts if isinstance(entry, Attempt)]

    def rounds(self, mode: str) -> list[Round]:
        """The rounds of a mode on a table of rows."""
        return [entry for entry in self.solves[mode].attempts if isinstance(entry, Round)]

    def accepted(self, mode: str) -> Tried | None:
        """The attempt that gave a mode's result; None where nothing was accepted."""
        return next((entry for entry in reversed(self.whole(mode)) if entry.accepted), None)

    def is_changed(self, mode: str) -> bool:
        """Whether a mode accepted anything; a given mask may be accepted though the tables predict nothing of it."""
        given = any(entry.accepted and entry.strength == 0 for entry in self.whole(mode))
        return given or bool(self.solves[mode].accepted_strength)

    def whole(self, mode: str) -> list[Tried]:
        """The attempts of a mode, without its drafts."""
        return [entry for entry in self.solves[mode].attempts if not entry.is_draft]

    @property
    def fastest(self) -> Fastest | None:
        """The fastest runtime at the first shape; None without a ladder or without eager."""
        return next(iter(self.fastest_by_shape.values()), None)

    @property
    def fastest_by_shape(self) -> dict[str, Fastest | None]:
        """Every shape of the ladder → the fastest runtime there whose quality holds."""
        return {shape: self._fastest_at(self.ladder, shape) for shape in self.ladder.shapes} if self.ladder else {}

    def _fastest_at(self, ladder: Ladder, shape: str) -> Fastest | None:
        named = ladder.at(shape)
        entry = ladder.runtimes.get(named.runtime) if named else None
        figures = entry.shapes[shape].arms.get("iterative", {}) if entry and entry.is_measured else {}
        if "vs_eager" not in figures:
            return None
        return Fastest(entry.label, figures["latency_ms"], figures["vs_eager"], named.quality, named.reason)

    @property
    def budget_pp(self) -> float | None:
        return self.config.get("codesign", {}).get("quality_budget_pp")

    @property
    def dropin_budget_pp(self) -> float | None:
        return self.config.get("codesign", {}).get("dropin_budget_pp")

    @property
    def board_readings(self) -> list[Reading]:
        """The readings of the board while energy was measured; none where that was not on a GPU."""
        path = self.dir / POWER
        try:
            return from_csv(path.read_text(encoding="utf-8")) if path.is_file() else []
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} is damaged ({error}); make it again with run_all.py --force") from error

    def read(self, rel: str):
        """A JSON file of the run, None if it is not there."""
        return _read(self.dir, rel)

    def exists(self, rel: str) -> bool:
        """Whether the run has this file."""
        return (self.dir / rel).is_file()


def check_current(verdict: Verdict, lock: dict, where: Path | str) -> None:
    """Raise `ArtifactError` for a run of an ICD that did not judge quality on seen and unseen text yet."""
    needed: dict[str, object] = {"gates_comparison": verdict.gates_comparison}
    if workload_of(lock["config"]) != ROWS:
        needed["quality"] = verdict.quality
    missing = [key for key, value in needed.items() if value is None]
    if missing:
        version = lock.get("icd_version", "of an unknown version")
        raise ArtifactError(
            f"{where} was made with ICD {version}, which did not judge as this one does: its verdict.json has no "
            f"{' and no '.join(missing)}; make it again with run_all.py --force"
        )


def _record(folder: Path, rel: str):
    """A file of the run as its record, None if it is not there."""
    return _checked(folder, rel, as_record)


def _read(folder: Path, rel: str):
    return _checked(folder, rel, check_shape)


def _checked(folder: Path, rel: str, check: Callable):
    path = folder / rel
    if not path.is_file():
        return None
    try:
        return check(read_text(path), rel, str(path))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is truncated or not JSON ({error}); make it again with run_all.py --force"
        ) from error
