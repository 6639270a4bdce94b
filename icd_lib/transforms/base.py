"""What a transform is to the loop: its options, what it knows beforehand, its plan, its effects, its file, its figures.

    known = transform.evidence(given)                        # once per arm, before anything changes
    plan = transform.plan(known, strength, present)          # per attempt
    model, meta = transform.apply(known, plan, model, origin)

The loop reads nothing but the effects in `meta` (`icd_lib.transforms.effects`): from them it lays every axis out anew
and makes the saving real. A new transform is a file or folder here and a row of `TRANSFORMS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from torch import nn

from icd_lib.axes.kinds import SINGLE
from icd_lib.transforms.effects import TransformMeta
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.options import PruneOptions


class Plan(Protocol):
    """What a transform is going to do, and what that is expected to give against dense (None: it cannot say)."""

    predicted_latency_rel: float | None
    predicted_loss: float | None

    def to_json(self) -> dict: ...


@dataclass(frozen=True)
class JointPlan:
    """The plans of several transforms, by name; what they are expected to give is taken for their sum."""

    plans: dict[str, Plan]

    @property
    def predicted_latency_rel(self) -> float:
        return sum(plan.predicted_latency_rel or 0.0 for plan in self.plans.values())

    @property
    def predicted_loss(self) -> float:
        return sum(plan.predicted_loss or 0.0 for plan in self.plans.values())

    def to_json(self) -> dict:
        """All fields of the plans together, the sums, and each plan by its name."""
        each = {name: plan.to_json() for name, plan in self.plans.items()}
        merged = {key: value for entry in each.values() for key, value in entry.items()}
        sums = {"predicted_latency_rel": self.predicted_latency_rel, "predicted_loss": self.predicted_loss}
        return merged | sums | {"transforms": each}


def join_plans(plans: dict[str, Plan]) -> Plan:
    """One plan for all: the only one, or a `JointPlan`, which takes a plan that predicts no latency for no change."""
    only = next(iter(plans.values())) if len(plans) == 1 else None
    return JointPlan(plans) if only is None or only.predicted_latency_rel is None else only


@dataclass(frozen=True)
class Manner:
    """How an arm lets its transforms act.

    granule: elements that are treated alike, per axis kind; orders: the layout in which granules are counted (None:
    the dense model's own); even: one rate for all layers.
    """

    granule: dict[str, int] = field(default_factory=lambda: SINGLE)
    orders: dict[str, np.ndarray] | None = None
    even: bool = False


@dataclass(frozen=True)
class Given:
    """All that a transform may build its evidence on; `options` are the values of its section of the scenario.

    common: those of the section `transform`, such as the tile, which hold for every transform.
    """

    observed: Observed
    findings: Findings
    options: object
    manner: Manner = Manner()  # noqa: B008 (frozen)
    common: PruneOptions = PruneOptions()
    progress: Callable[[str], None] = lambda line: None


class Known(Protocol):
    """What a transform knows before anything changes: frozen; what is computed on first use depends on nothing else.

    drafts: whether `Transform.draft` can be called; closed_form: whether `apply` computes what `draft` does, so that an
    attempt goes on from nothing (the first transform of a list then begins with the dense model every time).
    """

    drafts: bool
    closed_form: bool


class Transform(ABC):
    """A row of `TRANSFORMS`. It holds no state: what it knows is in its evidence.

    name: as in the table; options: the section of the scenario that holds its values, which is also what asks for it;
    panels: functions that draw its figures from a run's files, each "module:attribute", called with
    `icd_lib.report.results.Results` (sparsity's are in every report).
    survey: place of the function that finds out what graph/<name>.json holds, from what the transform is given.
    is_given: the model comes with it done, such as a mask from elsewhere. It then runs alone and in one attempt, π₀ is
    the order in which the model is stored, and every arm has to compute what the model does.
    trainable: what it leaves can be distilled; else the model is distilled before it, if another one was at work.
    """

    name: str
    options: str
    panels: tuple[str, ...] = ()
    survey: str | None = None
    is_given: bool = False
    trainable: bool = True

    @abstractmethod
    def evidence(self, given: Given) -> Known:
        """What is known of the dense model before anything changes."""

    @abstractmethod
    def plan(self, evidence: Known, strength: float, present: dict[str, int]) -> Plan:
        """How to get `strength` (change of latency against dense, negative) with axes of `present` elements.

        Raises `TransformError` when that is out of reach: the attempt is then rolled back.
        """

    def ladder(self, options) -> list[dict]:
        """Changes of its options that are tried one after the other, until one gives a result that keeps the budget.

        options: the values of its section. Most saving first; one change of nothing where nothing is searched.
        """
        return [{}]

    @abstractmethod
    def draft(self, evidence: Known, plan: Plan, model: nn.Module) -> tuple[nn.Module, TransformMeta]:
        """A quick candidate from `model` in the dense model's order; called only where `evidence.drafts`."""

    @abstractmethod
    def apply(
        self, evidence: Known, plan: Plan, model: nn.Module, origin: dict[str, np.ndarray]
    ) -> tuple[nn.Module, TransformMeta]:
        """Changed copy of `model` at the same shapes, and what happened to each axis, in the model's present order.

        origin: which dense elements each axis has left, in that order.
        """

    def save(self, meta: TransformMeta) -> dict:
        """What a run's file holds of it."""
        return meta.to_json()

    def load(self, entry: dict) -> TransformMeta:
        """The inverse of `save`."""
        return TransformMeta.from_json(entry)
