"""What every arm of the comparison shares: the model, its data, this machine's tables, and the judge of quality."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from icd_lib.axes.kinds import KINDS, SINGLE, granules
from icd_lib.codesign.layouts import SolverSettings
from icd_lib.errors import TransformError
from icd_lib.graph.moments import correlation_graph
from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter
from icd_lib.run.schema import STRENGTHS
from icd_lib.transforms.base import PrunePlan
from icd_lib.transforms.distill import TeacherStates
from icd_lib.transforms.sparsity.allocate import LatencyTable, LossCurve, allocate, describe
from icd_lib.transforms.sparsity.moments_file import kept_moments
from icd_lib.transforms.sparsity.obs import Elimination, Moments
from icd_lib.transforms.sparsity.prune import consumer_moments
from icd_lib.transforms.sparsity.sensitivity import eliminations, loss_curves
from icd_lib.transforms.streams import Goals


@dataclass(frozen=True)
class Judgement:
    """Quality lost against dense where strengths are chosen, percentage points, with its paired standard error."""

    drop_pp: float
    se_pp: float
    detail: dict = field(default_factory=dict)

    def bound(self, z: float) -> float:
        return self.drop_pp + z * self.se_pp

    def to_json(self) -> dict:
        return {"drop_pp": self.drop_pp, "se_pp": self.se_pp, **self.detail}


@dataclass(frozen=True)
class Settings:
    """Numbers of the scenario's `transform` and `codesign` sections that the loop needs."""

    axes: tuple[str, ...] = tuple(KINDS)
    tile: int = 16
    ridge: float = 0.01
    uniform: bool = False
    sequential: bool = True
    distill_steps: int = 200
    distill_lr: float = 2e-4
    quality_budget_pp: float = 0.1
    latency_target_rel: float | None = None
    selection_z: float = 1.0
    dropin_budget_pp: float | None = None
    min_cosine: float | None = None
    max_perplexity_ratio: float | None = None
    head_dim: int | None = None
    max_rounds: int = 6
    epsilon_j: float = 1e-3
    strengths: tuple[float, ...] = STRENGTHS
    nnz_cap: int = 200_000
    seed: int = 0

    @property
    def tiles(self) -> dict[str, int]:
        """Granule per axis kind."""
        return granules(self.tile)


@dataclass
class Problem:
    """A dense model that is never changed, and everything needed to judge changed copies of it."""

    dense: nn.Module
    batches: list[dict]
    distill_batches: list[dict]
    example: dict
    judge: Callable[[nn.Module], Judgement]
    tables: dict[str, LatencyTable]
    dense_ms: float
    rates: dict[str, float]
    settings: Settings
    solver: SolverSettings
    log: Callable[..., None] = lambda event, **meta: None
    progress: Callable[[str], None] = lambda line: None
    known_curves: list[LossCurve] | None = None
    known_perms: dict[str, np.ndarray] | None = None
    known_graphs: dict | None = None
    keep_layouts: Path | None = None
    keep_moments: Path | None = None

    @cached_property
    def adapter(self) -> Adapter:
        return find_adapter(self.dense)

    @cached_property
    def moments(self) -> dict[str, Moments]:
        """Second moments of every block of the dense model on the calibration batches; kept where the caller says."""
        if self.keep_moments is None:
            return consumer_moments(self.adapter, self.batches)
        return kept_moments(self.keep_moments, lambda: consumer_moments(self.adapter, self.batches))

    @cached_property
    def goals(self) -> Goals:
        """The dense model's residual sums on the calibration batches, the same for every attempt."""
        return Goals(self.adapter, self.batches)

    @cached_property
    def teacher_states(self) -> TeacherStates:
        """The dense model's hidden states on the distillation batches, the same for every attempt."""
        return TeacherStates(self.adapter, self.distill_batches)

    @cached_property
    def graphs(self) -> dict:
        """Co-activation W of every prunable axis of the dense model (an earlier stage may have built it)."""
        if self.known_graphs is not None:
            return self.known_graphs
        return build_graphs(self.adapter, self.moments, self.settings.nnz_cap)

    @cached_property
    def element_paths(self) -> dict[str, Elimination]:
        return eliminations(self.adapter, self.moments, SINGLE, self.settings.ridge, {})

    @cached_property
    def element_curves(self) -> list[LossCurve]:
        """Predicted loss when single elements go and whole tiles are kept (an earlier stage may have computed it)."""
        if self.known_curves is not None:
            return [curve for curve in self.known_curves if curve.kind in self.settings.axes]
        return self.curves(self.element_paths, SINGLE)

    @cached_property
    def drafts(self) -> bool:
        """Whether a candidate has a closed form: blocks read by nothing but their consumer, and made of no terms."""
        blocks = self.adapter.blocks()
        return self.settings.head_dim is None and not any(block.readers or block.terms for block in blocks)

    @property
    def closed_form(self) -> bool:
        """Whether candidates are pruned in closed form and not block after block."""
        return self.drafts and not self.settings.sequential

    def tile_paths(self, perms: dict[str, np.ndarray]) -> dict[str, Elimination]:
        """Order in which whole tiles of the layout `perms` go."""
        return eliminations(self.adapter, self.moments, self.settings.tiles, self.settings.ridge, perms)

    def curves(self, paths: dict[str, Elimination], groups: dict[str, int]) -> list[LossCurve]:
        """Predicted loss along elimination paths of granularity `groups`, when whole tiles are kept."""
        curves = loss_curves(self.adapter, paths, self.moments, self.rates, groups, self.settings.tiles)
        return [curve for curve in curves if curve.kind in self.settings.axes]

    def plan(self, curves: list[LossCurve], latency_rel: float, present: dict[str, int] | None = None) -> PrunePlan:
        """Uneven widths for a predicted latency; never wider than `present`."""
        if present is not None:
            curves = [_no_wider(curve, present.get(curve.axis)) for curve in curves]
        if self.settings.uniform:
            return self.uniform_plan(curves, latency_rel, self.settings.tile)
        return allocate(self.tables, curves, self.dense_ms, latency_rel)

    def uniform_plan(self, curves: list[LossCurve], latency_rel: float, step: int = 1) -> PrunePlan:
        """One width of the tiled axes for every layer, all else kept: the widest that reaches the predicted latency."""
        wide = [curve for curve in curves if KINDS[curve.kind].tiled]
        if not wide:
            raise TransformError(
                "one rate for all layers is a rate of FFN neurons or inner channels; add ffn or inner to transform.axes"
            )
        size = int(wide[0].kept[-1])
        widths = np.arange(step, size + 1, step)
        saved = sum(self.tables[curve.kind].saved(widths) for curve in wide)
        enough = widths[saved >= -latency_rel * self.dense_ms]
        if not len(enough):
            raise TransformError(f"no uniform width reaches {latency_rel:+.0%} on this machine; ask for less")
        kept = {curve.axis: int(enough[-1]) if KINDS[curve.kind].tiled else int(curve.kept[-1]) for curve in curves}
        return describe(self.tables, curves, self.dense_ms, kept)

    def over_budget(self, judgement: Judgement) -> list[str]:
        """What is wrong with a candidate's quality, in words; nothing if a latency target was asked for instead."""
        settings, reasons = self.settings, []
        if settings.latency_target_rel is not None:
            return reasons
        # "Not within" and not "beyond": a figure that is no number keeps no budget.
        if not judgement.bound(settings.selection_z) <= settings.quality_budget_pp:
            reasons.append(
                f"quality lost {judgement.drop_pp:+.3f} ± {judgement.se_pp:.3f} pp; with {settings.selection_z:g} "
                f"standard errors that exceeds the budget of {settings.quality_budget_pp:g} pp"
            )
        dropin, most = judgement.detail.get("dropin"), settings.dropin_budget_pp
        if most is not None and dropin and not dropin["drop_pp"] + settings.selection_z * dropin["se_pp"] <= most:
            reasons.append(
                f"drop-in quality lost {dropin['drop_pp']:+.3f} ± {dropin['se_pp']:.3f} pp; with "
                f"{settings.selection_z:g} standard errors that exceeds {most:g} pp"
            )
        cosine = judgement.detail.get("cosine")
        if settings.min_cosine is not None and cosine is not None and not cosine >= settings.min_cosine:
            reasons.append(f"cosine to dense {cosine:.4f} is below {settings.min_cosine:g}")
        ratio, most = judgement.detail.get("perplexity_ratio"), settings.max_perplexity_ratio
        if most is not None and ratio is not None and not ratio <= most:
            reasons.append(f"perplexity is {ratio:.4f} times the dense model's, more than {most:g}")
        return reasons


def build_graphs(adapter: Adapter, moments: dict[str, Moments], nnz_cap: int) -> dict:
    """W per axis from the moments the transform needs anyway; a head's activity is the norm of its output."""
    return {
        block.axis: correlation_graph(moments[block.axis].gram.numpy(), block.unit, nnz_cap)
        for block in adapter.prunable()
    }


def _no_wider(curve: LossCurve, limit: int | None) -> LossCurve:
    if limit is None:
        return curve
    allowed = curve.kept <= limit
    return LossCurve(curve.axis, curve.kind, curve.kept[allowed], curve.loss[allowed])
