"""Sparsity as the loop sees it: uneven widths for a latency, OBS with compensation, and axes on which elements die."""

import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from icd_lib.axes.kinds import SINGLE, granules
from icd_lib.axes.permutation import invert_permutation
from icd_lib.axes.permute import permute
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import is_quantized
from icd_lib.transforms.base import Given, Transform
from icd_lib.transforms.effects import Alive, TransformMeta
from icd_lib.transforms.options import PruneOptions
from icd_lib.transforms.sparsity.allocate import LossCurve, PrunePlan, allocate, allocate_evenly, allocate_rate
from icd_lib.transforms.sparsity.obs import Elimination
from icd_lib.transforms.sparsity.prune import prune, prune_closed_form
from icd_lib.transforms.sparsity.sensitivity import loss_curves


@dataclass(frozen=True, eq=False)
class SparsityEvidence:
    """In which order the elements of every axis go, and what the network loses by it."""

    given: Given

    @property
    def options(self) -> PruneOptions:
        return self.given.options

    @property
    def by_element(self) -> bool:
        manner = self.given.manner
        return manner.orders is None and manner.granule == SINGLE

    @cached_property
    def paths(self) -> dict[str, Elimination]:
        """Order in which granules go, in the layout they are counted in."""
        observed, manner = self.given.observed, self.given.manner
        if self.by_element:
            return observed.element_paths
        return observed.granule_paths(manner.granule, manner.orders or {}, self.options.ridge)

    @cached_property
    def curves(self) -> list[LossCurve]:
        """Predicted loss along `paths` when whole tiles are kept (an earlier stage may have computed it)."""
        observed, findings = self.given.observed, self.given.findings
        curves = findings.curves if self.by_element else None
        if curves is None:
            tiles = granules(self.options.tile)
            curves = loss_curves(
                observed.adapter, self.paths, observed.moments, findings.rates, self.given.manner.granule, tiles
            )
        return [curve for curve in curves if curve.kind in self.options.axes]

    @cached_property
    def drafts(self) -> bool:
        """Whether a candidate has a closed form: blocks read by nothing but their consumer, and made of no terms."""
        blocks = self.given.observed.adapter.blocks()
        return self.options.head_dim is None and not any(block.readers or block.terms for block in blocks)

    @property
    def closed_form(self) -> bool:
        """Whether candidates are pruned in closed form and not block after block."""
        return self.drafts and not self.options.sequential


class Sparsity(Transform):
    """Removes elements. In closed form it begins with the dense model, or with that model quantised."""

    name = "sparsity"
    options = "transform"
    panels = (
        "icd_lib.report.graph_figures:width_curves",
        "icd_lib.report.graph_figures:sensitivity_map",
        "icd_lib.report.graph_figures:predicted_frontier",
        "icd_lib.report.loop_figures:kept_widths",
    )

    def evidence(self, given: Given) -> SparsityEvidence:
        return SparsityEvidence(given)

    def plan(self, evidence: SparsityEvidence, strength: float, present: dict[str, int] | None = None) -> PrunePlan:
        """Widths for a predicted latency or for the options' rate, never wider than `present`."""
        findings, options = evidence.given.findings, evidence.options
        curves = [curve.up_to((present or {}).get(curve.axis)) for curve in evidence.curves]
        if options.rate is not None:
            step = options.tile if options.uniform else 1 if evidence.given.manner.even else None
            return allocate_rate(findings.tables, curves, findings.dense_ms, options.rate, step)
        if evidence.given.manner.even:
            return allocate_evenly(findings.tables, curves, findings.dense_ms, strength)
        if options.uniform:
            return allocate_evenly(findings.tables, curves, findings.dense_ms, strength, options.tile)
        return allocate(findings.tables, curves, findings.dense_ms, strength)

    def draft(self, evidence: SparsityEvidence, plan: PrunePlan, model: nn.Module) -> tuple[nn.Module, TransformMeta]:
        """Every block alone, from the dense model's moments."""
        observed, manner = evidence.given.observed, evidence.given.manner
        ridge, paths, granule = evidence.options.ridge, evidence.paths, manner.granule
        masked, alive = prune_closed_form(
            model, plan, observed.moments, paths, tile=granule, ridge=ridge, orders=manner.orders
        )
        meta = TransformMeta("sparsity", max(granule.values()), notes={"ridge": ridge, "closed_form": True})
        for block in observed.adapter.blocks():
            axis, size, path = block.axis, granule[block.kind], paths[block.axis]
            removed = int((~alive[axis]).sum()) // size
            order = np.arange(block.elements) if manner.orders is None else manner.orders[axis]
            groups = order[: block.elements // size * size].reshape(-1, size)
            saliency = np.zeros(block.elements)
            saliency[groups[path.order[:removed]]] = np.diff(path.loss[: removed + 1])[:, None]
            loss = path.loss[removed] / max(observed.moments[axis].energy, 1e-12)
            meta.axes[axis] = Alive(axis, block.kind, alive[axis], saliency, loss)
        return masked, meta

    def apply(
        self, evidence: SparsityEvidence, plan: PrunePlan, model: nn.Module, origin: dict[str, np.ndarray]
    ) -> tuple[nn.Module, TransformMeta]:
        """Block after block on the stream of the already pruned network, or the draft in the present layout."""
        given = evidence.given
        if evidence.closed_form:
            masked, meta = self.draft(evidence, plan, in_dense_order(model, origin, given.observed.model))
            for axis in find_adapter(masked).axes():
                if axis.name in origin:
                    permute(masked, axis, origin[axis.name])
            return masked, meta.permuted(origin)
        return prune(
            model,
            given.observed.model,
            plan,
            given.observed.batches,
            tile=given.manner.granule,
            ridge=evidence.options.ridge,
            goals=given.observed.goals,
            progress=given.progress,
        )


def in_dense_order(model: nn.Module, origin: dict[str, np.ndarray], dense: nn.Module) -> nn.Module:
    """What a closed form begins with: `dense`, or the quantised `model` with its axes as the dense one has them.

    Raises `TransformError` where elements of a quantised model are gone: nothing says what they would be on its grid.
    """
    if not is_quantized(model):
        return dense
    ordered = copy.deepcopy(model)
    for axis in find_adapter(ordered).axes():
        if axis.name in origin:
            if not np.array_equal(np.sort(origin[axis.name]), np.arange(axis.size)):
                raise TransformError(
                    f"axis {axis.name!r} of the quantised model has lost elements, so that it cannot be pruned in "
                    "closed form again; put sparsity first in quantization.order, or set transform.sequential"
                )
            permute(ordered, axis, invert_permutation(origin[axis.name]))
    return ordered


TRANSFORM = Sparsity()
