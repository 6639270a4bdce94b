"""Sparsity behind the protocol that every transform has."""

import numpy as np
import pytest

from icd_lib.axes.kinds import SINGLE
from icd_lib.errors import TransformError
from icd_lib.transforms import TRANSFORMS
from icd_lib.transforms.base import Manner
from icd_lib.transforms.sparsity.transform import TRANSFORM
from tests.tiny_problems import assert_same_state, small_problem, state_of, three_cycle


def evidence_of(problem, manner=None):
    return TRANSFORM.evidence(problem.given(TRANSFORM, manner or Manner()))


def test_it_is_the_row_of_its_name():
    assert TRANSFORMS["sparsity"] is TRANSFORM and TRANSFORM.name == "sparsity"


def test_only_what_has_a_closed_form_is_drafted():
    assert evidence_of(small_problem()).drafts and not evidence_of(small_problem(head_dim=4)).drafts
    assert evidence_of(small_problem(sequential=False)).closed_form
    assert not evidence_of(small_problem()).closed_form
    assert not evidence_of(small_problem(sequential=False, head_dim=4)).closed_form


def test_a_uniform_rate_without_the_ffn_is_refused_by_name():
    known = evidence_of(small_problem(axes=("heads",)), Manner(even=True))
    with pytest.raises(TransformError, match="add ffn or inner to transform.axes"):
        TRANSFORM.plan(known, -0.1, {})


def test_a_plan_is_never_wider_than_what_is_present():
    known = evidence_of(small_problem())
    free = TRANSFORM.plan(known, -0.2)
    narrow = TRANSFORM.plan(known, -0.2, {axis: max(1, kept // 2) for axis, kept in free.kept.items()})
    assert all(narrow.kept[axis] <= max(8 if axis[0] == "f" else 1, kept // 2) for axis, kept in free.kept.items())


def test_curves_that_were_computed_before_are_taken_for_single_elements_only():
    problem = small_problem()
    known = evidence_of(problem)
    found = [curve.up_to(24) for curve in known.curves]
    object.__setattr__(problem.evidence.findings, "curves", found)
    assert evidence_of(problem).curves == found
    orders = {axis: three_cycle(size) for axis, size in problem.sizes.items()}
    tiled = evidence_of(problem, Manner(problem.inputs.settings.tiles, orders))
    assert max(int(curve.kept[-1]) for curve in tiled.curves) == 48


@pytest.mark.parametrize("by_tile", [False, True])
def test_a_draft_and_an_attempt_in_closed_form_agree_but_for_the_layout(by_tile):
    problem = small_problem(sequential=False)
    origin = {axis: three_cycle(size) for axis, size in problem.sizes.items()}
    manner = Manner(problem.inputs.settings.tiles, origin) if by_tile else Manner(SINGLE)
    known, dense = evidence_of(problem, manner), problem.inputs.dense
    before = state_of(dense)
    plan = TRANSFORM.plan(known, -0.2)
    _, drafted = TRANSFORM.draft(known, plan, dense)
    _, applied = TRANSFORM.apply(known, plan, dense, origin)
    assert_same_state(dense, before)
    for axis, effect in drafted.axes.items():
        assert np.array_equal(effect.alive[origin[axis]], applied.axes[axis].alive)
        assert effect.kept == plan.kept[axis] and effect.loss == applied.axes[axis].loss
