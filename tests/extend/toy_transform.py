"""A transform from outside: FFN weights with few mantissa bits, a common scale for every group of neurons.

All there is to adding one: this file, named in ICD_EXTENSIONS, and a section `toy: {bits: 4, group: 8}` in a scenario.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch

from icd_lib.axes.kinds import KINDS
from icd_lib.models.families import find_adapter
from icd_lib.options import Section, option
from icd_lib.report.picture import canvas, finish
from icd_lib.run.options import SECTIONS
from icd_lib.storage.json_text import read_text
from icd_lib.transforms import TRANSFORMS
from icd_lib.transforms.base import Given, Transform
from icd_lib.transforms.effects import Groups, TransformMeta


class ToyOptions(Section):
    """Weights with few bits."""

    bits: int = option(8, "bits of a weight", unit="bits", low=2, high=8)
    group: int = option(8, "neurons that share a scale", low=1)


@dataclass(frozen=True)
class ToyPlan:
    bits: int
    predicted_latency_rel: float = 0.0
    predicted_loss: float = 0.0

    def to_json(self):
        return {"bits": self.bits}


@dataclass(frozen=True)
class ToyEvidence:
    bits: int
    group: int
    in_order: bool  # groups of neighbours, for an arm that keeps its layout
    drafts = True
    closed_form = True


class Toy(Transform):
    name = options = "toy"
    panels = ("tests.extend.toy_transform:draw_groups",)

    def evidence(self, given: Given) -> ToyEvidence:
        return ToyEvidence(given.options["bits"], given.options["group"], given.manner.orders is not None)

    def plan(self, evidence, strength, present):
        return ToyPlan(evidence.bits)

    def draft(self, evidence, plan, model):
        rounded = copy.deepcopy(model)
        meta = TransformMeta(self.name, evidence.group, notes=plan.to_json())
        for block in find_adapter(rounded).prunable():
            if KINDS[block.kind].tiled:
                largest = block.consumer.weight.detach().abs().amax(0)
                order = np.arange(len(largest)) if evidence.in_order else np.argsort(largest.numpy(), kind="stable")
                groups = np.empty(len(largest), dtype=np.int64)
                groups[order] = np.arange(len(order)) // evidence.group
                lost = round_columns(block.consumer, groups, plan.bits)
                meta.axes[block.axis] = Groups(block.axis, block.kind, groups, lost, float(lost.sum()))
        return rounded, meta

    def apply(self, evidence, plan, model, origin):
        return self.draft(evidence, plan, model)


def round_columns(linear, groups, bits):
    """Round every group of columns to `bits` bits of its largest weight; the squared error of each column."""
    lost = np.zeros(len(groups))
    for number in np.unique(groups):
        columns = torch.from_numpy(np.flatnonzero(groups == number))
        weights = linear.weight.detach()[:, columns]
        scale = weights.abs().max().clamp_min(1e-12) / 2 ** (bits - 1)
        with torch.no_grad():
            linear.weight[:, columns] = (weights / scale).round() * scale
        lost[columns.numpy()] = (linear.weight.detach()[:, columns] - weights).square().sum(0).double().numpy()
    return lost


def draw_groups(results):
    """Its figure: how many neurons every group of the first layer has."""
    meta = TransformMeta.from_json(read_text(results.dir / "iterative" / "transform_meta.json")["transforms"][-1])
    drawing, panel = canvas(2)
    panel.bar(*np.unique(meta.axes["ffn.0"].groups, return_counts=True))
    return finish(drawing, "toy_groups", "bars of one height", "Neurons of every group.", results)


SECTIONS.add("toy", ToyOptions)
TRANSFORMS.add("toy", Toy())
