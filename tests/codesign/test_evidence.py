"""What is known before the loop: frozen, shared by copies of a problem, and complete from the start."""

from dataclasses import FrozenInstanceError, replace

import pytest

from icd_lib.codesign.evidence import build_graphs, gather
from icd_lib.transforms.base import Manner
from icd_lib.transforms.sparsity.transform import TRANSFORM
from tests.tiny_problems import small_problem


@pytest.mark.parametrize("part", ["inputs", "evidence", "transforms"])
def test_nothing_is_patched_later(part):
    problem = small_problem()
    with pytest.raises(FrozenInstanceError):
        setattr(problem, part, None)
    for item, name in ((problem.inputs, "judge"), (problem.evidence, "findings"), (problem.evidence.findings, "rates")):
        with pytest.raises(FrozenInstanceError):
            setattr(item, name, None)


def test_graphs_are_built_from_the_moments_of_every_prunable_axis():
    problem = small_problem()
    observed, cap = problem.evidence.observed, problem.inputs.settings.nnz_cap
    assert list(problem.sizes) == [item.axis for item in observed.adapter.prunable()]
    assert problem.sizes == {"heads.0": 4, "ffn.0": 48, "heads.1": 4, "ffn.1": 48}
    again = build_graphs(observed, cap)
    assert all((again[axis] != graph).nnz == 0 for axis, graph in problem.evidence.graphs.items())


def test_a_problem_with_other_settings_keeps_what_is_known():
    problem = small_problem()
    other = replace(problem, inputs=replace(problem.inputs, settings=problem.inputs.settings.but(axes=("ffn",))))
    given = other.given(TRANSFORM, Manner(even=True))
    assert given.observed is problem.evidence.observed and given.options.axes == ("ffn",) and given.manner.even
    assert gather(problem.inputs, problem.evidence.findings, given.observed).observed is given.observed


def test_a_transform_gets_the_values_of_its_section():
    inputs = replace(small_problem().inputs, sections={"toy": {"bits": 4}})
    assert inputs.options("toy") == {"bits": 4} and inputs.options("transform") is inputs.settings
