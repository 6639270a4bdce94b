"""Options of the loop and of the calibration of J; and the loop's numbers, from whichever door they come."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator

from icd_lib.axes.kinds import granules
from icd_lib.errors import ConfigError
from icd_lib.graph.options import EdgeOptions
from icd_lib.options import Section, Seeded, option
from icd_lib.options.check import check_value, unknown_key
from icd_lib.options.field import fields
from icd_lib.options.option import plain
from icd_lib.transforms.options import PruneOptions

# Latency against dense, in steps that the noise of the judge can tell apart.
STRENGTHS = (-0.1, -0.15, -0.2, -0.25, -0.3, -0.35, -0.4, -0.45, -0.5, -0.6)

# What a judge has to tell more than one number for: a standard error, drop-in quality, cosine, perplexity.
NEEDS_MORE = ("selection_z", "dropin_budget_pp", "min_cosine", "max_perplexity_ratio")

PERPLEXITY_RATIO = 1.01  # one percent worse

Strength = Annotated[float, Field(ge=-0.95, le=0)]
ModeName = Literal["linear", "oneshot", "iterative"]


class LoopOptions(Section):
    """How far a model is changed."""

    quality_budget_pp: float = option(
        0.1, "own quality that may be lost against dense, percentage points", unit="pp", low=0, high=100
    )
    dropin_budget_pp: float | None = option(
        None, "quality that may be lost where probes and index stay the dense model's", unit="pp", low=0, high=100
    )
    latency_target_rel: float | None = option(
        None, "stop at this latency relative to dense", unit="fraction", low=-1, high=0
    )
    selection_z: float = option(1.0, "standard errors of safety when a strength is chosen", low=0, high=10)
    min_cosine: float | None = option(
        None, "least mean cosine to the dense model's embeddings where strengths are chosen", low=0, high=1
    )
    max_perplexity_ratio: float | None = option(
        PERPLEXITY_RATIO, "most perplexity of a language model relative to dense on validation data", above=1
    )
    max_rounds: int = option(6, "rounds of re-permute and transform", low=1, high=100)
    epsilon_j: float = option(
        1e-3, "least fall of J for which a solved layout is taken over packing the present one", low=0
    )
    strengths: tuple[Strength, ...] = option(
        STRENGTHS,
        "latencies relative to dense among which every mode looks for its strongest, from the middle one on",
        unit="fraction",
        least=1,
    )


class CodesignOptions(LoopOptions):
    """How far a model is changed, and on whose text that is judged."""

    arms: tuple[ModeName, ...] = option(
        get_args(ModeName), "modes that a run solves beside each other, of those that --mode names", least=1
    )
    budget_on: Literal["unseen", "seen"] = option(
        "unseen", "whose text the budget is for: any other text, or the calibration's own domains"
    )


class CalibrationOptions(Section):
    """The weights of J, from layouts that are measured on this machine."""

    pilots: int = option(20, "layouts measured to weigh the cost; 0 keeps the weights of cost", low=0, high=1000)
    repeats: int = option(15, "interleaved rounds of every pilot", low=3)
    apply: bool = option(True, "solve with the calibrated weights where the fit is good")


class Settings(Seeded, EdgeOptions, LoopOptions, PruneOptions):
    """The loop's numbers: options of a scenario's `transform`, `codesign` and `graph`, and its seed."""

    @classmethod
    def of(cls, config: Mapping) -> Self:
        """Those of a scenario's configuration."""
        given = {**config["graph"], **config["codesign"], **config["transform"], "seed": config["seed"]}
        return cls(**{name: given[name] for name in cls.model_fields if name in given})

    @classmethod
    def of_arguments(cls, budget_pp, latency_target_rel, seed, further: Mapping, names: Iterable[str]) -> Self:
        """Those of Python's arguments, checked as a scenario's; `names`: of all arguments that are no further ones.

        Refused besides: what bounds figures that a `quality` of one number does not tell, so that it had no effect.
        """
        options = fields(cls)
        budget_pp = check_value(plain(budget_pp), options["quality_budget_pp"], "budget_pp")
        for key, value in further.items():
            if key == "quality_budget_pp":
                raise ConfigError(f"quality_budget_pp is called budget_pp here: budget_pp={value!r:.40}")
            if key not in options:
                known = [*names, *(name for name in options if name not in ("quality_budget_pp", *NEEDS_MORE))]
                raise ConfigError(unknown_key(key, key, known, []))
            if key in NEEDS_MORE and value is not None:
                raise ConfigError(
                    f"{key} has no effect here: it bounds what a scenario's judge tells, and quality tells one number; "
                    "leave it out, and let quality return less where that bound is broken"
                )
        further = {key: value for key, value in further.items() if key not in NEEDS_MORE}
        return cls(quality_budget_pp=budget_pp, latency_target_rel=latency_target_rel, seed=seed, **further)

    @field_validator("strengths")
    @classmethod
    def _weakest_first(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(strengths, reverse=True))

    @property
    def is_bounded(self) -> bool:
        """Whether quality decides how strong; a latency or a rate that was asked for leaves it nothing to decide."""
        return self.latency_target_rel is None and self.rate is None

    @property
    def tiles(self) -> dict[str, int]:
        """Granule per axis kind."""
        return granules(self.tile)
