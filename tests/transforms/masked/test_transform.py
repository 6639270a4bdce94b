"""A mask that comes with the model, in the loop: what is dead leaves as each arm can, and the function stays."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.loop import solve
from icd_lib.errors import ConfigError, TransformError
from icd_lib.models.families.bert.mask import put_mask
from icd_lib.transforms import TRANSFORMS, is_given, transforms_of
from icd_lib.transforms.masked import transform
from tests.tiny_problems import FFN, HEADS, assert_same_state, small_batches, small_model, small_problem, state_of

MASKED = TRANSFORMS["masked"]
MODES = ("linear", "oneshot", "iterative")


def masked_model(**mask):
    model = small_model(dtype=torch.float32)
    put_mask(model, **({"neurons": 0.5, "heads": 1, "scattered": 0.3} | mask))
    return model


def masked_problem(model, **changes):
    problem = small_problem(model=model, transforms=(MASKED,), **({"distill_steps": 0} | changes))
    return replace(problem, inputs=replace(problem.inputs, sections={"masked": {}}))


@pytest.mark.parametrize("mode", MODES)
def test_every_arm_computes_what_the_masked_model_does_in_one_attempt(mode):
    model = masked_model()
    given, problem = state_of(model), masked_problem(model)
    solution = solve(problem, mode)
    assert_same_state(model, given)
    (attempt,) = solution.attempts
    assert attempt["accepted"] and attempt["what"] == "attempt"
    assert attempt["strength"] == solution.best.plan.predicted_latency_rel < 0
    assert solution.best.plan.to_json()["kept"] == solution.best.widths
    assert solution.best.metas["masked"].notes["max_rel_error"] <= 1e-5
    for batch in small_batches():
        wanted, got = (model_outputs(each.double(), batch) for each in (masked_model(), solution.best.model))
        assert outputs_error(got, wanted) <= 1e-5


def test_gathered_the_dead_leave_and_in_the_stored_order_only_whole_tiles_do():
    model = masked_model()
    dead = (model.encoder.layer[0].intermediate.dense.weight == 0).all(1).numpy()
    widths = {mode: solve(masked_problem(model), mode).best.widths for mode in MODES}
    stored = 8 * int((~dead.reshape(-1, 8).all(1)).sum())
    assert widths["linear"]["ffn.0"] == stored > 24 == widths["iterative"]["ffn.0"] == widths["oneshot"]["ffn.0"]
    assert {found["heads.1"] for found in widths.values()} == {HEADS - 1}, "a head is a tile by itself"


def test_linear_begins_in_the_stored_order_and_iterative_moves_the_dead_behind():
    model = masked_model()
    solution = solve(masked_problem(model), "iterative")
    alive = (model.encoder.layer[0].intermediate.dense.weight != 0).any(1).numpy()
    assert solution.perms_before["ffn.0"].tolist() == list(range(FFN)) and not solution.solver_stats
    assert set(solution.best.origin["ffn.0"]) == set(np.flatnonzero(alive))


def test_what_does_not_fill_a_tile_stays_and_does_nothing():
    model = masked_model(neurons=0.25)  # 12 of 48: a tile of 8 and four more
    solution = solve(masked_problem(model), "iterative")
    assert solution.best.widths["ffn.0"] == 40
    columns = solution.best.model.encoder.layer[0].output.dense.weight
    assert int((columns == 0).all(0).sum()) == 4


def test_kinds_of_axes_that_the_scenario_leaves_out_stay():
    widths = solve(masked_problem(masked_model(), axes=("ffn",)), "iterative").best.widths
    assert widths["heads.0"] == HEADS and widths["ffn.0"] == 24


def test_a_given_layout_is_kept():
    model = masked_model()
    alive = (model.encoder.layer[0].intermediate.dense.weight != 0).any(1).numpy()
    problem = masked_problem(model)
    perms = {axis: np.arange(size) for axis, size in problem.sizes.items()}
    perms["ffn.0"] = np.argsort(~alive, kind="stable")
    problem = replace(problem, evidence=replace(problem.evidence, perms=perms))
    solution = solve(problem, "linear")
    assert solution.best.widths["ffn.0"] == 24, "in that layout whole tiles are dead"
    for batch in small_batches():
        wanted, got = (model_outputs(each.double(), batch) for each in (masked_model(), solution.best.model))
        assert outputs_error(got, wanted) <= 1e-5


@pytest.mark.parametrize(
    ("mask", "mode", "words"),
    [
        ({"neurons": 0.0, "heads": 0}, "iterative", "no element is dead: zeros without structure"),
        (
            {"neurons": 0.04, "heads": 0},
            "linear",
            "4 elements are dead, and they fill no tile of 8 in the stored order",
        ),
        ({"neurons": 0.04, "heads": 0}, "iterative", "4 elements are dead, and they fill no tile of 8 in any order"),
    ],
)
def test_where_nothing_can_leave_the_attempt_is_rolled_back_and_says_why(mask, mode, words):
    solution = solve(masked_problem(masked_model(**mask)), mode)
    (attempt,) = solution.attempts
    assert not attempt["accepted"] and words in attempt["reasons"][0] and solution.best.metas == {}


def test_an_axis_that_is_dead_as_a_whole_keeps_one_granule():
    model = masked_model(heads=0)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight.zero_()
        model.encoder.layer[1].attention.output.dense.weight.zero_()
    widths = solve(masked_problem(model), "iterative").best.widths
    assert widths["ffn.0"] == 8 and widths["heads.1"] == 1


def test_another_function_is_refused_and_nothing_is_changed(monkeypatch):
    model = masked_model()
    problem = masked_problem(model)
    monkeypatch.setattr(transform, "silence", lambda changed, dead: changed.encoder.layer[0].output.dense.bias.mul_(2))
    known = MASKED.evidence(problem.given(MASKED))
    given = state_of(model)
    with pytest.raises(TransformError, match="outputs differ by .* nothing was changed"):
        MASKED.draft(known, MASKED.plan(known, 0.0, problem.sizes), model)
    assert_same_state(model, given)


def test_a_loss_above_the_budget_rolls_it_back():
    problem = masked_problem(masked_model())
    problem = replace(problem, inputs=replace(problem.inputs, judge=lambda model: Judgement(9.0, 0.0)))
    assert not solve(problem, "iterative").attempts[0]["accepted"]


def config(**sections):
    return {"transform": {"distill_steps": 0, "head_dim": None}, **sections}


def test_a_scenario_with_its_section_does_nothing_else():
    assert transforms_of(config(masked={})) == (MASKED,) and is_given(config(masked={}))
    assert [row.name for row in transforms_of(config())] == ["sparsity"] and not is_given(config())


@pytest.mark.parametrize(
    ("strengths", "target", "rate", "first"),
    [
        ((0,), None, None, "quantization"),
        ((0, -0.1), None, None, "sparsity"),
        ((0,), -0.2, None, "sparsity"),
        ((0,), None, 0.5, "sparsity"),
    ],
)
def test_where_nothing_may_be_removed_there_is_no_sparsity(strengths, target, rate, first):
    codesign = {"strengths": strengths, "latency_target_rel": target}
    section = {"precision": "int8_weights", "order": ("sparsity", "quantization")}
    found = config(codesign=codesign, quantization=section) | {"transform": {"rate": rate}}
    assert transforms_of(found)[0].name == first
    del found["quantization"]
    assert [row.name for row in transforms_of(found)] == ["sparsity"], "a run does something"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"distill_steps": 5}, "distill_steps is 5, .* set it to 0"), ({"head_dim": 8}, "head_dim is 8, .* to null")],
)
def test_what_would_change_the_function_is_refused(changes, words):
    found = config(masked={})
    with pytest.raises(ConfigError, match=words):
        transforms_of(found | {"transform": found["transform"] | changes})
