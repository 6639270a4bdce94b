"""The result of a sweep: its points with what became of them, the frontier, and the best within a loss."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.storage.json_text import read_text
from icd_lib.storage.record_json import from_json
from icd_lib.sweeps.collect import ARMS
from icd_lib.sweeps.outcome import ArmFigures, Outcome, Setting, Where, read_outcomes
from icd_lib.sweeps.pareto import frontier

FILE = "sweep.json"
# What a frontier may hold against the quality lost: name → its number in an arm's figures, None where not measured.
COSTS: dict[str, Callable[[ArmFigures], float | None]] = {
    "latency": lambda figures: figures.latency_ms.value,
    "size": lambda figures: float(figures.parameter_bytes),
    "energy": lambda figures: figures.energy_j_per_token.value,
}


@dataclass(frozen=True, kw_only=True)
class PlannedPoint:
    """A point as sweep.json holds it; merged: names of points that would have been the same run."""

    name: str
    levels: dict[str, str]
    source: str
    overrides: list[str]
    merged: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """All of sweep.json."""

    sweep: str
    icd_version: str
    quick: bool
    factors: dict[str, list[str]]
    points: list[PlannedPoint]
    options: dict


@dataclass(frozen=True)
class Row:
    """An arm of a finished point."""

    number: int
    point: str
    levels: dict[str, str]
    arm: str
    where: Where
    figures: ArmFigures
    command: str

    @property
    def key(self) -> tuple[str, str]:
        return self.point, self.arm

    @property
    def is_beaten_by_dense(self) -> bool:
        """Whether it is no faster than the dense model beside it and loses quality."""
        latency, drop = self.figures.latency_vs_dense.value, self.figures.quality_drop_pp.value
        return latency is not None and drop is not None and latency >= 0 <= drop


@dataclass(frozen=True)
class SweepResult:
    """A sweep's folder, read once: what was planned and what became of every point."""

    dir: Path
    planned: Planned
    outcomes: dict[str, Outcome]

    @classmethod
    def load(cls, folder: Path | str) -> "SweepResult":
        """Read sweep.json and points.jsonl; `ArtifactError` if there is no sweep or a file is broken."""
        folder = Path(folder)
        path = folder / FILE
        try:
            planned = from_json(Planned, read_text(path), str(path))
        except FileNotFoundError as error:
            raise ArtifactError(f"{folder} holds no sweep (no {FILE}); run_all.py --sweep FILE makes one") from error
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} is truncated or not JSON ({error}); run the sweep again") from error
        known, found = {point.name for point in planned.points}, read_outcomes(folder)
        return cls(folder, planned, {name: outcome for name, outcome in found.items() if name in known})

    def outcome(self, name: str) -> Outcome:
        """What became of a point; one that has no end yet is `not_run`."""
        return self.outcomes.get(name) or Outcome(point=name, status="not_run", reason="it has not ended yet")

    def count(self, status: str) -> int:
        """How many points ended so."""
        return sum(self.outcome(point.name).status == status for point in self.planned.points)

    @cached_property
    def rows(self) -> list[Row]:
        """Every measured arm of every finished point, in the order of the sweep; points are numbered from 1."""
        found = []
        for number, point in enumerate(self.planned.points, 1):
            outcome = self.outcome(point.name)
            if outcome.is_done and outcome.where:
                found += [
                    Row(number, point.name, point.levels, arm, outcome.where, outcome.arms[arm], outcome.command)
                    for arm in ARMS
                    if arm in outcome.arms
                ]
        return found

    @cached_property
    def settings(self) -> list[Setting]:
        """Model, calls, machine and runtime within which figures are on one frontier, in order."""
        return list(dict.fromkeys(row.where.setting for row in self.rows))

    def machine(self, where: Where | Setting) -> str:
        """The machine for people, by name only where the sweep has figures of several of its kind."""
        hosts = {setting.host for setting in self.settings if setting.machine == where.machine}
        return f"{where.machine}, machine {where.host or 'not named'}" if len(hosts) > 1 else where.machine

    def candidates(self, setting: Setting, cost: str = "latency") -> list[tuple[Row, tuple[float, float]]]:
        """(row, costs) of every arm but dense in a setting: a cost of `COSTS`, and quality lost, or size without it."""
        arms = [row for row in self.rows if row.where.setting == setting and row.arm != DENSE]
        judged = self.is_judged(setting)
        found = []
        for row in arms:
            figures = row.figures
            first = COSTS[cost](figures)
            second = figures.quality_drop_pp.value if judged else float(figures.parameter_bytes)
            if first is not None and second is not None:
                found.append((row, (first, second)))
        return found

    def is_judged(self, setting: Setting) -> bool:
        """Whether quality was measured there; where no arm's was, size stands in its place."""
        arms = [row for row in self.rows if row.where.setting == setting and row.arm != DENSE]
        return any(row.figures.quality_drop_pp.value is not None for row in arms)

    def pareto(self, cost: str = "latency") -> list[Row]:
        """The rows on the frontier of every setting: least `cost` (latency, size or energy) against quality lost."""
        if cost not in COSTS:
            raise ConfigError(f"pareto takes {', '.join(COSTS)}; got {cost!r}")
        found = []
        for setting in self.settings:
            pairs = self.candidates(setting, cost)
            if cost == "latency":
                pairs = [pair for pair in pairs if not pair[0].is_beaten_by_dense]
            on = frontier([costs for _, costs in pairs])
            found += [row for (row, _), is_on in zip(pairs, on, strict=True) if is_on]
        return found

    def best(self, max_drop_pp: float = 0.1, setting: Setting | None = None) -> Row:
        """The fastest iterative arm that loses at most `max_drop_pp` (the estimate); without quality the fastest.

        Of all runtimes, unless a setting is named. `ConfigError` where there are several models, calls or machines and
        none is named, or no point loses so little.
        """
        settings = self.settings if setting is None else [setting]
        if len({one._replace(runtime="") for one in settings}) > 1:
            listed = "; ".join(map(str, settings))
            raise ConfigError(f"points of different models, calls or machines are not compared; name one of: {listed}")
        pairs = [
            (costs, row, self.is_judged(one))
            for one in settings
            for row, costs in self.candidates(one)
            if row.arm == RESULT
        ]
        kept = [(costs[0], row) for costs, row, judged in pairs if not judged or costs[1] <= max_drop_pp]
        if not kept:
            lost = [costs[1] for costs, _, judged in pairs if judged]
            least = f"; the least that one loses is {min(lost):+.3f} pp" if lost else ""
            raise ConfigError(f"no finished point loses at most {max_drop_pp:g} pp{least}")
        return min(kept, key=lambda pair: pair[0])[1]

    def frame(self):
        """report.csv as a pandas DataFrame: one row a point."""
        import pandas

        from icd_lib.sweeps.rows import columns_of, point_rows

        return pandas.DataFrame(point_rows(self), columns=columns_of(self))
