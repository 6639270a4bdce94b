"""Everything a run directory holds so far; what is not there (yet) is None or empty."""

from dataclasses import dataclass, field
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.experiment.arms import ARMS as ALL_ARMS
from icd_lib.experiment.arms import DENSE, MODES, ROWS, workload_of
from icd_lib.experiment.comparisons import judged_names
from icd_lib.run.artifacts import LOCK
from icd_lib.run.files import check_shape
from icd_lib.storage.json_text import read_text

ARMS = (DENSE, *MODES)  # that metrics.json and the tables are about; controls stand beside them


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
    solves: dict[str, dict] = field(default_factory=dict)
    measure: dict | None = None
    samples: dict | None = None
    ladder: dict | None = None
    verdict: dict | None = None
    calibration: dict | None = None
    manifest: dict | None = None
    stages: dict = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path | str) -> "Results":
        """Read what is there; a file that is there but damaged is an `ArtifactError`."""
        folder = Path(folder)
        solves = {mode: _read(folder, f"{mode}/solve.json") for mode in MODES}
        return cls(
            dir=folder,
            lock=_read(folder, LOCK),
            setup=_read(folder, "setup/setup.json"),
            graphs=_read(folder, "graph/w.meta.json"),
            tables=_read(folder, "graph/tables.json"),
            sensitivity=_read(folder, "graph/sensitivity.json"),
            prediction=_read(folder, "graph/prediction.json"),
            solves={mode: solve for mode, solve in solves.items() if solve},
            measure=_read(folder, "measure/measure.json"),
            samples=_read(folder, "measure/samples.json"),
            ladder=_read(folder, "measure/ladder.json"),
            verdict=_read(folder, "verdict.json"),
            calibration=_read(folder, "graph/calibration.json"),
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
        found = [text for subject in ("run", *subjects) for text in self._badges[subject]]
        return list(dict.fromkeys(text.partition(":")[0] for text in found))

    @property
    def _badges(self) -> dict[str, list[str]]:
        found = {"run": [], "model": [], "layout": [], "timing": self.timing_badges}
        setup = self.setup or {}
        for text in setup.get("badges", []):
            about = setup.get("badge_subjects", {}).get(text)
            found[about if about in found else "run"].append(text)
        if self.lock and self.lock.get("quick") and not self.setup:
            found["run"].append("quick run: figures are rough")
        late = [mode for mode, solve in self.solves.items() if any(s["timed_out"] for s in solve["solver"].values())]
        if late:
            found["layout"].append(f"solver time-out: the best layout found so far was taken ({', '.join(late)})")
        return found

    @property
    def timing_badges(self) -> list[str]:
        """What has to be known of the circumstances of the timing."""
        latency = (self.measure or {}).get("latency", {})
        found = [warning for taken in latency.get("taken", {}).values() for warning in taken["warnings"]]
        if not latency.get("clocks", {"locked": True})["locked"]:
            found.append(f"unlocked: {latency['clocks']['reason']}")
        return list(dict.fromkeys(found))

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
    def shapes(self) -> dict[str, dict]:
        """Shape label → arm → latency figures; empty before the measurement."""
        return self.measure["latency"]["shapes"] if self.measure else {}

    @property
    def arms(self) -> list[str]:
        """The compared arms that were measured, in the usual order."""
        return [arm for arm in ARMS if self.measure and arm in self.measure["sizes"]]

    @property
    def quality_reason(self) -> str | None:
        """Why there is no quality, None where there is."""
        if not self.measure:
            return "03_measure has not finished"
        return self.measure["quality"].get("reason")

    @property
    def judging(self) -> str:
        """The split that the quality budget is for: "unseen" or "seen" text."""
        return "seen" if self.config.get("codesign", {}).get("budget_on") == "seen" else "unseen"

    @property
    def splits(self) -> list[str]:
        """The splits that were judged, the budget's first; empty where quality was not measured."""
        if self.quality_reason:
            return []
        return sorted(self.measure["quality"]["dense"], key=lambda split: split != self.judging)

    def lost(self, arm: str) -> dict[str, dict]:
        """Split → what an arm loses against dense there (`Battery.compare`); empty where it was not judged."""
        found = {} if self.quality_reason or arm == "dense" else self.measure["quality"].get(arm, {})
        return {split: found[split] for split in self.splits if split in found}

    @property
    def is_language(self) -> bool:
        """Whether a language model was judged: it has a perplexity and no embedding."""
        return any(entry.get("perplexity_ratio") for arm in ARMS for entry in self.lost(arm).values())

    @property
    def gates_comparison(self) -> str:
        """The section of the verdict that the gates judge."""
        named = self.verdict.get("gates_comparison")
        return named if named in judged_names() else "same_transform"

    def accepted(self, mode: str) -> dict | None:
        """The attempt that gave a mode's result; None where nothing was accepted."""
        whole = [entry for entry in self.solves[mode]["attempts"] if entry.get("what") != "draft"]
        return next((entry for entry in reversed(whole) if entry["accepted"]), None)

    @property
    def fastest(self) -> dict | None:
        """The runtime in which iterative takes least time at the first shape; None without a ladder or without eager.

        {"runtime", "label", "latency_ms", "vs_eager", …, "quality"}: its figures there, and what is lost in it or null
        with the "reason" why that was not judged.
        """
        named = (self.ladder or {}).get("fastest") or {}
        entry = (self.ladder or {}).get("runtimes", {}).get(named.get("runtime"))
        arms = next(iter(entry["shapes"].values()))["arms"] if entry else {}
        if "vs_eager" not in arms.get("iterative", {}):
            return None
        return {"label": entry["label"], **named, **arms["iterative"]}

    @property
    def budget_pp(self) -> float | None:
        return self.config.get("codesign", {}).get("quality_budget_pp")

    @property
    def dropin_budget_pp(self) -> float | None:
        return self.config.get("codesign", {}).get("dropin_budget_pp")

    def read(self, rel: str):
        """A JSON file of the run, None if it is not there."""
        return _read(self.dir, rel)

    def exists(self, rel: str) -> bool:
        """Whether the run has this file."""
        return (self.dir / rel).is_file()


def check_current(verdict: dict, lock: dict, where: Path | str) -> None:
    """Raise `ArtifactError` for a run of an ICD that did not judge quality on seen and unseen text yet."""
    is_table = workload_of(lock["config"]) == ROWS
    missing = [key for key in ("gates_comparison", *(() if is_table else ("quality",))) if key not in verdict]
    if missing:
        version = lock.get("icd_version", "of an unknown version")
        raise ArtifactError(
            f"{where} was made with ICD {version}, which did not judge as this one does: its verdict.json has no "
            f"{' and no '.join(missing)}; make it again with run_all.py --force"
        )


def _read(folder: Path, rel: str):
    path = folder / rel
    if not path.is_file():
        return None
    try:
        return check_shape(read_text(path), rel, str(path))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} is truncated or not JSON ({error}); make it again with run_all.py --force"
        ) from error
