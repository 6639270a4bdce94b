"""measure/measure.json and measure/ladder.json: what was measured of the arms."""

import math
from dataclasses import dataclass, field

from icd_lib.metric import Figure, check_bounded, not_measured
from icd_lib.records.attempts import Pair, RowsSizes, Validation
from icd_lib.records.losses import Quality, SplitLoss

MEASURED = "measure/measure.json"
LADDER = "measure/ladder.json"


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One arm at one shape."""

    latency_ms: Figure
    throughput_tokens_per_s: Figure
    vs_dense: Figure

    def __post_init__(self):
        check_bounded(self.latency_ms, self.vs_dense)
        if None in (self.latency_ms.p50, self.latency_ms.p95, self.latency_ms.p99):
            raise ValueError("latency_ms lacks a percentile")


@dataclass(frozen=True, kw_only=True)
class Power:
    """What the rounds can detect (`icd_lib.measure.power.power_analysis`): arms compared → smallest change."""

    rounds: int
    needed: int
    effect: float
    power: float
    detectable: dict[str, float]
    planned: int
    cap: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """How the samples of a shape were taken."""

    power: Power
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Whether the clock of the processor or GPU is fixed, and why that cannot be said; how: by whom, where ICD did."""

    locked: bool
    reason: str | None
    how: str | None = None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Shape → arm → its figures; the first shape is judged."""

    threads: int
    shapes: dict[str, dict[str, Timing]]
    taken: dict[str, Taken] = field(default_factory=dict)
    clocks: Clocks | None = None

    @property
    def first(self) -> dict[str, Timing]:
        """Every arm at the shape that is judged."""
        return next(iter(self.shapes.values()))


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """A model: bytes, work of a call, elements and tiles that are left."""

    parameter_bytes: int
    flops: int
    widths: dict[str, int]
    tiles: dict[str, int]
    peak_memory_mb: Figure


@dataclass(frozen=True, kw_only=True)
class MeasuredRows(RowsSizes):
    """The table of an arm."""

    peak_memory_mb: Figure


@dataclass(frozen=True, kw_only=True)
class Agreeing:
    """Arms whose checksums have to agree."""

    arms: list[str]
    equal: bool


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step from dense to iterative; `arm`: whose latency it is, where the file says so."""

    step: str
    latency_rel: Figure
    note: str
    arm: str | None = None
    validation: Validation | None = None


@dataclass(frozen=True, kw_only=True)
class Against:
    """An arm against another one, and what differs between them."""

    other: str
    shows: str
    latency_rel: Figure


@dataclass(frozen=True, kw_only=True)
class DeployStep:
    """A step from dense in PyTorch eager to the result as deployed; `place`: the runtime that its arm is in.

    vs_eager: latency relative to the first step's; against: to that of steps which differ in one thing.
    """

    step: str
    arm: str
    place: str
    latency_ms: Figure
    vs_eager: Figure
    note: str
    validation: Validation
    against: list[Against] = field(default_factory=list)

    def __post_init__(self):
        check_bounded(self.latency_ms, self.vs_eager, *(item.latency_rel for item in self.against))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All of measure.json. equality: control → precision → relative error (models), what lives → arms (rows).

    deployment: None where the models run in PyTorch eager at fp32, and in a run of before the steps were taken apart
    l2_hit_pct: of each arm where models run on a GPU, else why there is none; None of a table of rows
    rounds: metric ("l2_hit_pct", "energy_j_per_token") → arm → what gave its mean, where models run on a GPU; the
    values of energy are pairs by round
    caches: stream → arm → figures, checksums and `shapes` (way of reading → words): of a table of rows only
    """

    latency: Latency
    quality: Quality
    equality: dict[str, Agreeing | dict[str, float]]
    sizes: dict[str, ModelSizes | MeasuredRows]
    energy: dict[str, Figure]
    controls: dict[str, str] = field(default_factory=dict)
    l2_hit_pct: Figure | dict[str, Figure] | None = None
    rounds: dict[str, dict[str, list[float]]] | None = None
    attribution: list[Step] | None = None
    deployment: list[DeployStep] | None = None
    checksums: dict[str, dict[str, str]] | None = None
    caches: dict[str, dict[str, dict[str, Figure]]] | None = None
    shapes: dict[str, str] | None = None

    def hits_of(self, arm: str) -> Figure:
        """The L2 hit rate of a model, or why it is not known."""
        found = self.l2_hit_pct
        if isinstance(found, dict):
            return found.get(arm) or not_measured("%", "this arm was not profiled", method="ncu")
        return found or not_measured("%", "hits of a table are simulated", method="ncu")

    def rounds_of(self, metric: str, arm: str) -> list[float]:
        """What gave an arm's mean, empty where that is not kept."""
        return (self.rounds or {}).get(metric, {}).get(arm, [])


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Against dense, at the shape that is judged."""

    latency_rel: Figure
    quality_drop_pp: Figure

    def __post_init__(self):
        check_bounded(self.latency_rel)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """<arm>/metrics.json: an arm by itself, at the shape that is judged."""

    run_id: str
    scenario: str
    mode: str
    model: dict
    latency_ms: Figure
    throughput_tokens_per_s: Figure
    l2_hit_pct: Figure
    energy_j_per_token: Figure
    quality_pct: Figure
    peak_memory_mb: Figure
    parameter_bytes: int
    objective: Pair | None
    vs_dense: Changes
    environment: dict
    config_sha256: str


@dataclass(frozen=True, kw_only=True)
class AtShape:
    """Arm → metric → its figure, in a runtime at a shape."""

    arms: dict[str, dict[str, Figure]]


@dataclass(frozen=True, kw_only=True)
class InRuntime:
    """A runtime of the ladder, or why it was not measured."""

    label: str
    status: str
    reason: str | None = None
    shapes: dict[str, AtShape] = field(default_factory=dict)

    def __post_init__(self):
        if self.status == "measured" and not self.shapes:
            raise ValueError("it was measured at no shape")
        if self.status != "measured" and self.reason is None:
            raise ValueError("it was not measured and gives no reason")

    @property
    def is_measured(self) -> bool:
        return self.status == "measured"


@dataclass(frozen=True, kw_only=True)
class FastestRuntime:
    """Its name, and arm → what it loses there; None with the reason where that was not judged.

    more: split → what the result loses there on the other text that it is judged on
    """

    runtime: str
    quality: dict[str, SplitLoss] | None = None
    reason: str | None = None
    more: dict[str, SplitLoss] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """All of ladder.json; fastest: at the first shape; fastest_at: the same of every other shape.

    refused: runtimes that are faster than those, and what their quality was short of
    """

    baseline: str
    threads: int
    runtimes: dict[str, InRuntime]
    fastest: FastestRuntime | None = None
    refused: dict[str, str] = field(default_factory=dict)
    fastest_at: dict[str, FastestRuntime | None] = field(default_factory=dict)

    @property
    def shapes(self) -> list[str]:
        """The shapes that were timed, the one that decides first."""
        return next((list(entry.shapes) for entry in self.runtimes.values() if entry.is_measured), [])

    def at(self, shape: str) -> FastestRuntime | None:
        """The fastest runtime at a shape whose quality holds; None where there is none, or none was asked for."""
        return self.fastest if shape == self.shapes[0] else self.fastest_at.get(shape)

    @property
    def judged(self) -> dict[str, FastestRuntime]:
        """The runtimes that are fastest at some shape, by name."""
        return {found.runtime: found for found in (self.fastest, *self.fastest_at.values()) if found}

    def by_latency(self, arm: str, shape: str) -> list[str]:
        """The runtimes in which `arm` was measured at a shape, the fastest first.

        By latency relative to the reference runtime, or, where one was not timed beside it, by the medians.
        """
        figures = {
            name: entry.shapes[shape].arms[arm]
            for name, entry in self.runtimes.items()
            if entry.is_measured and arm in entry.shapes[shape].arms
        }
        key = "vs_eager" if all("vs_eager" in found for found in figures.values()) else "latency_ms"
        known = [(found[key].value, name) for name, found in figures.items()]
        return [name for _, name in sorted((math.inf if value is None else value, name) for value, name in known)]
