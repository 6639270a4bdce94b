"""verdict.json: comparisons, controls and gates."""

from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from icd_lib.errors import ArtifactError
from icd_lib.metric import Figure, check_bounded
from icd_lib.records.measured import Agreeing, Clocks

VERDICT = "verdict.json"
Status = Literal["pass", "fail", "partial"]
State = Literal["pass", "fail", "not_measured"]


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """Stands where there is no answer, and says why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """What a gate says (`icd_lib.experiment.gates.judge`): metric → state, what its interval says, and why."""

    status: Status
    checks: dict[str, State]
    bounds: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A comparison: change of latency at every shape, the first one judged; and what belongs to its claim.

    latency_rel is None where the section is the shapes alone. lost: against dense, of the result or of every arm
    that is compared (`quality_drop_pp` in the file); max_rel_error: precision → largest difference of two functions
    """

    shapes: dict[str, Figure]
    latency_rel: Figure | None = None
    contains_zero: dict[str, bool] | None = None
    l2_pp: Figure | None = None
    ept_rel: Figure | None = None
    max_rel_error: dict[str, float] | float | None = None
    equality: dict[str, Agreeing] | None = None
    quality_drop_pp: Figure | dict[str, Figure] | None = None
    other_quality_drop_pp: Figure | None = None

    def __post_init__(self):
        if not self.shapes:
            raise ValueError("it compares at no shape")
        check_bounded(*self.shapes.values(), self.latency_rel)

    @property
    def metrics(self) -> dict[str, Figure]:
        """Metric → figure, of those that a gate takes from the comparison that it judges."""
        figures = {"latency_rel": self.latency_rel, "l2_pp": self.l2_pp, "ept_rel": self.ept_rel}
        return {key: item for key, item in figures.items() if item is not None}

    @property
    def lost(self) -> Figure | None:
        """What the result loses against dense."""
        return self.quality_drop_pp if isinstance(self.quality_drop_pp, Figure) else None

    @classmethod
    def arranged(cls, value: dict) -> dict:
        return value if "shapes" in value else {"shapes": value}


@dataclass(frozen=True, kw_only=True)
class CostChange:
    """π₁ against π₀ on W′, mean over the axes."""

    delta_c_rel: float
    delta_q: float
    delta_j: float


@dataclass(frozen=True, kw_only=True)
class Determinism:
    """W built and π₀ solved again."""

    pi_hash_equal: bool
    w_hash_equal: bool
    max_metric_drift_rel: float


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Drift of the dense arm between the halves of its rounds."""

    latency_drift_rel: float
    tolerance_rel: float
    within: bool
    clocks: Clocks


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was promised of an arm, and what was measured."""

    predicted_latency_rel: float
    measured: Figure


@dataclass(frozen=True, kw_only=True)
class SplitQuality:
    """What iterative loses on a split; how near it stays to dense, where that is known."""

    own_pp: Figure
    own_labelled_pp: Figure
    dropin_pp: Figure
    worst_domain: str
    n_items: int
    cosine: Figure | None = None
    kl: Figure | None = None
    perplexity_ratio: Figure | None = None

    def __post_init__(self):
        check_bounded(self.own_pp, self.dropin_pp)
        if self.own_pp.se_pp is None:
            raise ValueError("what is lost of own quality has no standard error")

    def reading(self, name: str) -> Figure:
        return {"own": self.own_pp, "own_labelled": self.own_labelled_pp, "dropin": self.dropin_pp}[name]

    def nearness(self, name: str) -> Figure | None:
        return {"cosine": self.cosine, "kl": self.kl, "perplexity_ratio": self.perplexity_ratio}[name]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All of verdict.json; in the file every section is a key of its own.

    quality: split → what iterative loses (models); judged: the figures that the gates had (rows); other_comparisons:
    comparison → gate → state, put to the same limits of latency (models)
    """

    smoke: GateVerdict
    strict: GateVerdict
    cost: CostChange | Unknown
    determinism: Determinism | Unknown
    gates_comparison: str | None = None
    sections: dict[str, Section] = field(default_factory=dict)
    outside_metrics: dict[str, Figure] = field(default_factory=dict)
    stability: Stability | None = None
    quality: Unknown | dict[str, SplitQuality] | None = None
    prediction: dict[str, Predicted] | None = None
    other_comparisons: dict[str, dict[str, State]] = field(default_factory=dict)
    judged: dict[str, Figure] = field(default_factory=dict)
    SPREAD: ClassVar[str] = "sections"

    def gate(self, name: str) -> GateVerdict:
        return {"smoke": self.smoke, "strict": self.strict}[name]

    def section(self, key: str) -> Section:
        """The section of a comparison; `ArtifactError` where the verdict has none."""
        if key not in self.sections:
            raise ArtifactError(f"verdict.json has no section {key!r}; make it again with --force")
        return self.sections[key]

    @classmethod
    def arranged(cls, value: dict) -> dict:
        named = {one.name for one in fields(cls)}
        return value | {"sections": {key: item for key, item in value.items() if key not in named and _compares(item)}}


def _compares(item) -> bool:
    """Whether an object is a section: figures by shape, or `shapes` that are."""
    shapes = item.get("shapes", item) if isinstance(item, dict) else {}
    figures = shapes.values() if isinstance(shapes, dict) else ()
    return bool(figures) and all(isinstance(one, dict) and {"value", "unit", "kind"} <= one.keys() for one in figures)
