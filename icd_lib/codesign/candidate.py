"""A model on the way: what it still has, what is expected of it, what it was judged, and the record of its fate."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from icd_lib.codesign.budget import over_budget
from icd_lib.codesign.evidence import Problem
from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.ladder import Rung
from icd_lib.codesign.layouts import LayoutChange
from icd_lib.codesign.options import Settings
from icd_lib.records.attempts import Attempt, Change, Pair
from icd_lib.records.reasons import Reason
from icd_lib.runtimes.emulation import has_bf16
from icd_lib.storage.devices import back_on_cpu, device_of
from icd_lib.transforms.base import Plan
from icd_lib.transforms.distill import distill
from icd_lib.transforms.effects import Effect, TransformMeta


@dataclass(frozen=True, eq=False)
class Candidate:
    """`origin[axis]`: which dense elements are left, in their present order; `effects[axis]`: over all dense elements.

    metas: what each transform of its last attempt did; changes: the axes that this attempt laid out anew; unquantized:
    the model before a transform put its weights on a grid, where others had been at work before that.
    """

    model: nn.Module
    origin: dict[str, np.ndarray]
    strength: float = 0.0
    plan: Plan | None = None
    judgement: Judgement | None = None
    before_distill: nn.Module | None = None
    unquantized: nn.Module | None = None
    effects: dict[str, Effect] = field(default_factory=dict)
    metas: dict[str, TransformMeta] = field(default_factory=dict)
    changes: dict[str, LayoutChange] = field(default_factory=dict)
    certificates: list[dict] = field(default_factory=list)

    def on_cpu(self) -> "Candidate":
        """The same with its models on the CPU, where files are written from; what lies there is not copied."""
        names = ("model", "before_distill", "unquantized")
        return replace(self, **{name: back_on_cpu(getattr(self, name)) for name in names})

    @property
    def widths(self) -> dict[str, int]:
        return {axis: len(elements) for axis, elements in self.origin.items()}

    @property
    def predicted_latency_rel(self) -> float:
        """Against dense, by the tables."""
        return self.plan.predicted_latency_rel if self.plan else 0.0


def distilled(problem: Problem, candidate: Candidate) -> Candidate:
    """The candidate distilled toward the dense model, the same for every arm."""
    inputs, settings, model = problem.inputs, problem.inputs.settings, candidate.model
    if settings.distill_steps:
        model = distill(
            model,
            inputs.dense,
            inputs.distill_batches,
            steps=settings.distill_steps,
            learning_rate=settings.distill_lr,
            seed=settings.seed,
            bf16=bool(settings.distill_bf16) and has_bf16(device_of(model)),
            states=problem.evidence.observed.teacher_states,
            progress=inputs.progress,
        )
    return replace(candidate, model=model, before_distill=candidate.model)


def objections(settings: Settings, best: Candidate | None, candidate: Candidate) -> list[Reason]:
    """Why the candidate is not accepted (empty: it is): its predicted latency must fall, and quality must hold.

    J and C have no say in this: they choose between the layouts of one transform (`layouts.repermute`).
    """
    reasons = []
    if best is not None and candidate.predicted_latency_rel > best.predicted_latency_rel:
        before, after = best.predicted_latency_rel, candidate.predicted_latency_rel
        reasons.append(Reason("latency", "the tables predict a rise in latency", after, before))
    return reasons + over_budget(candidate.judgement, settings)


def record(
    candidate: Candidate | None, rung: Rung, reasons: list[Reason], setting: Mapping[str, float] | None = None
) -> Attempt:
    """One draft or attempt for the log and the report; setting: that of its `Problem`."""
    attempt = Attempt(
        what=rung.what,
        strength=rung.strength,
        accepted=not reasons,
        reasons=tuple(reasons),
        setting=None if setting is None else dict(setting),
    )
    if candidate is None:
        return attempt
    attempt = replace(
        attempt,
        widths=candidate.widths,
        predicted_latency_rel=candidate.plan.predicted_latency_rel,
        predicted_loss=candidate.plan.predicted_loss,
        validation=candidate.judgement.record(),
    )
    if not candidate.changes:
        return attempt
    change = Change(**{term: mean_change(candidate.changes, term) for term in ("C", "Q", "J")})
    return replace(
        attempt,
        change=change,
        disagreement=disagreement(change, candidate.plan.predicted_latency_rel),
        objective={axis: Pair.of(found.before, found.after) for axis, found in candidate.changes.items()},
    )


def disagreement(change: Change, predicted: float) -> str | None:
    """In words, where J rose although the tables predict less time."""
    if not change.J > 0 > predicted:
        return None
    return (
        f"J rose by {change.J:.4f} (C by {change.C:+.4f}), but fewer tiles are touched: the tables predict "
        f"{predicted:+.1%}; the clock decides"
    )


def mean_change(changes: dict[str, LayoutChange], term: str) -> float:
    """Mean over the axes that were laid out anew of term(π₁) − term(before)."""
    if not changes:
        return 0.0
    return float(np.mean([getattr(change.after, term) - getattr(change.before, term) for change in changes.values()]))
