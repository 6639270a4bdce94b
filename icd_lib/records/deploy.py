"""setup/setup.json, "deploy": where the models of a run are planned, judged and timed for, and what else was tried."""

from dataclasses import dataclass, field

from icd_lib.records.attempts import Validation


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A runtime that could have been taken, with the dense model in it.

    latency_rel: shape → change against the dense model in the reference runtime; None: it was not measured
    validation: what the dense model loses there where strengths are chosen; None: it was not asked, or does not round
    reason: why it was not taken
    """

    runtime: str
    label: str
    latency_rel: dict[str, float] | None = None
    validation: Validation | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """The runtime that was taken, by its row's name; `asked`: deploy.runtime and deploy.precision of the scenario.

    disturbed: what else went on while the runtimes were compared
    """

    runtime: str
    label: str
    precision: str
    asked: tuple[str, str]
    why: str
    tried: list[Tried] = field(default_factory=list)
    disturbed: list[str] = field(default_factory=list)
