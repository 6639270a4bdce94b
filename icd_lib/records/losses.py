"""What a model loses against dense, as the judges compare it (`Battery.compare`, `LanguageSuite.compare`)."""

from dataclasses import dataclass, field
from typing import ClassVar

from icd_lib.metric import check_interval

Interval = tuple[float, float]
DEPLOYED = "dense_deployed"  # among the arms that were judged: the dense model in a runtime that rounds


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One reading of quality: percentage points lost, and the paired standard error; what is left of how much."""

    drop_pp: float
    se_pp: float
    ci95: Interval | None = None
    dense_pct: float | None = None
    pct: float | None = None

    def __post_init__(self):
        check_interval(self.ci95)
        if self.se_pp < 0:
            raise ValueError(f"se_pp is not negative, got {self.se_pp}")


@dataclass(frozen=True, kw_only=True)
class WholeLoss(Loss):
    """Of a domain or a split, where both percentages are known."""

    dense_pct: float = field()
    pct: float = field()


@dataclass(frozen=True, kw_only=True)
class Nearness:
    """How near a model stays to dense, mean over domains."""

    value: float
    ci95: Interval

    def __post_init__(self):
        check_interval(self.ci95)


@dataclass(frozen=True, kw_only=True)
class Readings:
    """The readings of quality by name; one that a judge does not have is None."""

    own: WholeLoss
    own_labelled: WholeLoss | None = None
    dropin: WholeLoss | None = None

    def reading(self, name: str) -> Loss | None:
        return {"own": self.own, "own_labelled": self.own_labelled, "dropin": self.dropin}[name]


@dataclass(frozen=True, kw_only=True)
class TaskLoss:
    """One task of a domain; `sort`: "labelled" or of word topics."""

    sort: str
    n: int
    dense_pct: float
    own: Loss
    dropin: Loss | None = None

    def reading(self, name: str) -> Loss | None:
        return {"own": self.own, "dropin": self.dropin}[name]


@dataclass(frozen=True, kw_only=True)
class DomainLoss(Readings):
    """One domain; how near the model stays to dense there, in plain numbers."""

    n: int
    cosine: float | None = None
    kl: float | None = None
    perplexity_ratio: float | None = None
    tasks: dict[str, TaskLoss] = field(default_factory=dict)

    def nearness(self, name: str) -> float | None:
        return {"cosine": self.cosine, "kl": self.kl, "perplexity_ratio": self.perplexity_ratio}[name]


@dataclass(frozen=True, kw_only=True)
class SplitLoss(Readings):
    """One split, the mean over its domains."""

    n_items: int
    worst_domain: str = ""
    split: str = ""
    method: str = ""
    cosine: Nearness | None = None
    kl: Nearness | None = None
    perplexity_ratio: Nearness | None = None
    domains: dict[str, DomainLoss] = field(default_factory=dict)

    def nearness(self, name: str) -> Nearness | None:
        return {"cosine": self.cosine, "kl": self.kl, "perplexity_ratio": self.perplexity_ratio}[name]


@dataclass(frozen=True, kw_only=True)
class DenseDomain:
    """The dense model on a domain, percent."""

    quality_pct: float
    n: int
    labelled_pct: float | None = None


@dataclass(frozen=True, kw_only=True)
class DenseQuality:
    """The dense model on a split, percent."""

    quality_pct: float
    n_items: int
    domains: dict[str, DenseDomain]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was judged at the end: `reason` where nothing was; `lost`: arm → split → against dense.

    judging: the split that the budget is for, on which every arm is judged
    """

    judging: str = ""
    reason: str | None = None
    dense: dict[str, DenseQuality] = field(default_factory=dict)
    lost: dict[str, dict[str, SplitLoss]] = field(default_factory=dict)
    SPREAD: ClassVar[str] = "lost"

    def __post_init__(self):
        if self.reason is None and self.judging not in self.dense:
            raise ValueError(f"no quality of dense on the text that is judged, {self.judging!r}, and no reason")

    @classmethod
    def arranged(cls, value: dict) -> dict:
        """In the file every arm is a key of its own."""
        if value.get("reason") is not None:
            return {"reason": value["reason"]}
        own = {key: value[key] for key in ("judging", "dense") if key in value}
        return own | {"lost": {arm: splits for arm, splits in value.items() if arm not in own}}
