"""What is known before the loop starts: complete and never changed; what is lazy depends on nothing but the inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import scipy.sparse as sp

from icd_lib.codesign.inputs import Inputs
from icd_lib.graph.moments import correlation_graph
from icd_lib.transforms.base import Given, Manner, Transform
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.sparsity.transform import TRANSFORM as SPARSITY


@dataclass(frozen=True, eq=False)
class Evidence:
    """observed: the dense model on its batches; findings: tables, rates, curves; graphs: W of every prunable axis.

    perms: π₀ of every axis where it is given and need not be solved.
    """

    observed: Observed
    findings: Findings
    graphs: Mapping[str, sp.csr_array]
    perms: dict[str, np.ndarray] | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    """All that a mode needs. transforms: what is done to the model, in this order.

    setting: the rung of the transforms' ladders that this is, by the options' paths; None where there is no choice.
    """

    inputs: Inputs
    evidence: Evidence
    transforms: tuple[Transform, ...] = (SPARSITY,)
    setting: Mapping[str, float] | None = None

    def given(self, transform: Transform, manner: Manner = Manner()) -> Given:  # noqa: B008 (frozen)
        """What a transform may build its own evidence on."""
        inputs = self.inputs
        options = inputs.options(transform.options)
        return Given(self.evidence.observed, self.evidence.findings, options, manner, inputs.settings, inputs.progress)

    def settings(self) -> Iterator["Problem"]:
        """One problem for every rung of the transforms' ladders of options, the most saving first."""
        given = [item for item in self.transforms if item.options in self.inputs.sections]
        ladders = [item.ladder(self.inputs.options(item.options)) for item in given]
        for rungs in product(*ladders):
            changes = {item.options: rung for item, rung in zip(given, rungs, strict=True) if rung}
            sections = {name: {**self.inputs.options(name), **change} for name, change in changes.items()}
            inputs = replace(self.inputs, sections={**self.inputs.sections, **sections})
            setting = {f"{name}.{key}": value for name, change in changes.items() for key, value in change.items()}
            yield replace(self, inputs=inputs, setting=setting) if setting else self

    @property
    def is_given(self) -> bool:
        """Whether the model comes with what is done to it, so that nothing is searched."""
        return any(transform.is_given for transform in self.transforms)

    @property
    def is_fixed(self) -> bool:
        """Whether how strong is said beforehand: by what the model comes with, or by a rate."""
        return self.is_given or self.inputs.settings.rate is not None

    def with_one_strength(self, strength: float) -> "Problem":
        """The same, with one attempt at `strength`."""
        only = {"strengths": (strength,), "max_rounds": 1, "latency_target_rel": None}
        return replace(self, inputs=replace(self.inputs, settings=self.inputs.settings.model_copy(update=only)))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many elements every axis of the dense model has."""
        return {axis: graph.shape[0] for axis, graph in self.evidence.graphs.items()}


def gather(inputs: Inputs, findings: Findings, observed: Observed | None = None) -> Evidence:
    """The evidence on `inputs` where no earlier stage has left any but the findings; computes the graphs."""
    observed = observed or inputs.observe()
    return Evidence(observed, findings, build_graphs(observed, inputs.settings.nnz_cap))


def build_graphs(observed: Observed, nnz_cap: int) -> dict[str, sp.csr_array]:
    """W per axis from the moments the transform needs anyway; a head's activity is the norm of its output."""
    return {
        block.axis: correlation_graph(observed.moments[block.axis].gram.numpy(), block.unit, nnz_cap)
        for block in observed.adapter.prunable()
    }
