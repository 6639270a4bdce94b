"""A candidate that holds or gives NaN or infinity is refused before it is judged."""

import math

import pytest
import torch
from tiny_problems import small_model, small_problem

from icd_lib.codesign.finite import check_weights, find_not_finite
from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.ladder import Rung
from icd_lib.codesign.loop import solve, tried
from icd_lib.errors import AxisError, ConfigError, MeasureError, NotFinite


def broken(value, name="encoder.layer.1.output.dense.bias"):
    model = small_model(dtype=torch.float32)
    model.get_parameter(name)[3] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_no_number_is_named(value):
    model = broken(value)
    assert find_not_finite(model, []) == "encoder.layer.1.output.dense.bias"
    with pytest.raises(ConfigError, match="encoder.layer.1.output.dense.bias of the model holds NaN or infinity"):
        check_weights(model)
    assert find_not_finite(small_model(), []) is None


def test_weights_of_eight_bits_are_refused_by_name():
    model = small_model(dtype=torch.float32)
    model.pooler.dense.bias = torch.nn.Parameter(torch.zeros(32).to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(AxisError, match="pooler.dense.bias is float8_e4m3fn: quantised"):
        check_weights(model)


def overflowing():
    """Every weight is finite, and a sum of two products is not."""
    model = small_model(dtype=torch.float32)
    layer = model.encoder.layer[1]
    layer.intermediate.dense.bias.fill_(1e30)
    layer.output.dense.weight.mul_(1e30)
    return model


def test_an_output_that_overflows_is_named():
    problem = small_problem()
    model = overflowing()
    assert find_not_finite(model, []) is None
    assert find_not_finite(model, problem.inputs.batches) == "its output last_hidden_state"


def test_it_is_rolled_back_with_a_reason_and_nobody_is_asked():
    asked = []
    problem = small_problem(judge=lambda model: asked.append(model) or Judgement(-100.0, 0.0))
    entries = []
    assert tried(problem, Rung("draft", -0.1), entries, None, lambda: problem.inputs.judged(broken(math.nan))) is None
    (reason,) = entries[0].reasons
    assert reason.code == "not finite" and not entries[0].accepted and not asked
    assert "encoder.layer.1.output.dense.bias holds NaN or infinity" in reason.text
    with pytest.raises(NotFinite):
        problem.inputs.judged(overflowing())
    assert problem.inputs.judged(problem.inputs.dense).drop_pp == -100.0 and len(asked) == 1


def test_a_quality_that_is_no_number_refuses_the_candidate_and_the_loop_goes_on():
    def judge(model):
        asked.append(model)
        if len(asked) == 2:  # the second draft
            raise NotFinite("the model's embedding of text 3 is not finite; check its weights")
        return Judgement(0.0, 0.0)

    asked = []
    solution = solve(small_problem(judge=judge, strengths=(-0.1, -0.2), distill_steps=0), "oneshot")
    (refused,) = [attempt for attempt in solution.tried if attempt.reasons]
    assert refused is solution.tried[1] and refused.reasons[0].code == "not finite" and refused.validation is None
    assert "embedding of text 3" in refused.fate and (solution.best.strength, len(asked)) == (-0.2, 4)


def test_a_judge_that_fails_otherwise_ends_the_loop():
    def judge(model):
        raise MeasureError("the models have vocabularies of 61 and 60 tokens")

    with pytest.raises(MeasureError, match="vocabularies"):
        solve(small_problem(judge=judge, distill_steps=0), "oneshot")
