"""<mode>/solve.json: what a mode tried, and what became of it."""

from dataclasses import dataclass, field
from typing import Any

from icd_lib.metric import Figure
from icd_lib.records.losses import Interval, Loss
from icd_lib.records.reasons import Reason
from icd_lib.storage.record_json import fields_of


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The objective of a layout."""

    C: float
    Q: float
    R_align: float
    R_stab: float
    J: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """π₀ and π₁, or the layout before an attempt and its own."""

    before: Terms
    after: Terms

    @classmethod
    def of(cls, before, after) -> "Pair":
        """Of two reports of `evaluate_cost`."""
        return cls(before=Terms(**vars(before)), after=Terms(**vars(after)))


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an attempt changed in the objective, mean over the axes that it laid out anew."""

    C: float
    Q: float
    J: float


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What was lost where strengths are chosen (`Judgement.to_json`); `reason`: why nothing was judged."""

    drop_pp: float | None = None
    se_pp: float | None = None
    reason: str | None = None
    split: str | None = None
    n_items: int | None = None
    ci95: Interval | None = None
    cosine: float | None = None
    kl: float | None = None
    perplexity_ratio: float | None = None
    own_labelled: Loss | None = None
    dropin: Loss | None = None
    per_domain: dict[str, float] | None = None
    quality_pct: float | None = None
    dense_quality_pct: float | None = None

    def __post_init__(self):
        if self.reason is None and (self.drop_pp is None or self.se_pp is None):
            raise ValueError("it says neither what was lost nor why that is not known")

    @property
    def is_judged(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What a mode tried, and its fate. In the file `reasons` are the texts, and `why` is what programs read of them."""

    what: str
    strength: float
    accepted: bool
    reasons: tuple[Reason, ...]

    @property
    def is_draft(self) -> bool:
        return self.what == "draft"

    @property
    def fate(self) -> str:
        """In words: accepted, or rolled back and why."""
        told = "; ".join(reason.text for reason in self.reasons)
        return "accepted" if self.accepted else f"rolled back: {told}"

    def to_json(self) -> dict:
        written = fields_of(self)
        told = {"reasons": [reason.text for reason in self.reasons], "why": [one.to_json() for one in self.reasons]}
        head = {key: written.pop(key) for key in ("what", "strength", "accepted")}
        return head | told | {key: value for key, value in written.items() if key != "reasons"}

    @classmethod
    def arranged(cls, value: dict) -> dict:
        """Runs of before there was a `why` have reasons without a code."""
        texts, why = value.get("reasons"), value.get("why")
        if not isinstance(texts, list):
            return value
        codes = [{"code": None}] * len(texts) if why is None else why
        if not isinstance(codes, list) or len(codes) != len(texts) or not all(isinstance(one, dict) for one in codes):
            raise ValueError("not every reason has its entry in why")
        return value | {"reasons": [one | {"text": text} for one, text in zip(codes, texts, strict=True)]}


@dataclass(frozen=True, kw_only=True)
class Attempt(Tried):
    """A draft or an attempt of a model; one whose transform was refused got no further than its reasons.

    disagreement: in words, where J rose although the tables predict less time; setting: options that were chosen from a
    ladder, by their paths
    """

    setting: dict[str, float] | None = None
    widths: dict[str, int] | None = None
    predicted_latency_rel: float | None = None
    predicted_loss: float | None = None
    validation: Validation | None = None
    change: Change | None = None
    disagreement: str | None = None
    objective: dict[str, Pair] | None = None


@dataclass(frozen=True, kw_only=True)
class Round(Tried):
    """A round of a table of rows; a mode that takes one step has no trial. solver: statistics of the new layout."""

    change: Change | None = None
    objective: dict[str, Pair] | None = None
    latency_rel: Figure | None = None
    validation: Validation | None = None
    solver: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class RowsSizes:
    """A table of rows: its places, the living and dead rows among them, tiles and bytes."""

    rows: int
    living_rows: int
    dead_rows_kept: int
    tiles: int
    parameter_bytes: int


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What the tables predict of the result."""

    predicted_latency_rel: float


@dataclass(frozen=True, kw_only=True)
class SolverRecord:
    """How π₀ of an axis was found."""

    timed_out: bool
    winner: str = "–"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The mean over the axes, and every axis."""

    mean: Pair
    axes: dict[str, Pair]


@dataclass(frozen=True, kw_only=True)
class _Solved:
    """unfit: of a model, what to do about axes that no tile divides, in words."""

    accepted_strength: float
    widths: dict[str, int]
    objective: Objective
    solver: dict[str, SolverRecord]
    certificates: list[dict] = field(default_factory=list)
    plan: PlanRecord | None = None
    validation: Validation | None = None
    latency_target_rel: float | None = None
    reached: bool | None = None
    unfit: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class SolvedModel(_Solved):
    """solve.json of a model."""

    attempts: list[Attempt]


@dataclass(frozen=True, kw_only=True)
class SolvedRows(_Solved):
    """solve.json of a table of rows, with the size of the result."""

    attempts: list[Round]
    sizes: RowsSizes


Solved = SolvedRows | SolvedModel
