"""What a given mask made dead is counted before anything changes; a model that nobody pruned is refused."""

import json

import pytest
import torch

from icd_lib.codesign.masked import survey
from icd_lib.errors import TransformError
from icd_lib.run.files import check_shape
from tests.tiny_problems import assert_same_state, small_model, state_of
from tests.transforms.masked.test_transform import MASKED, masked_model, masked_problem


def surveyed(model):
    return survey(masked_problem(model).given(MASKED))


def test_every_axis_is_counted_and_the_model_is_not_changed():
    model = masked_model()
    given = state_of(model)
    found = json.loads(json.dumps(surveyed(model)))
    assert_same_state(model, given)
    assert check_shape(found, "graph/masked.json", "it") is found and found["tile"] == 8
    axes = {entry["axis"]: entry for entry in found["axes"]}
    assert [axes["ffn.0"][key] for key in ("size", "dead", "kept")] == [48, 24, 24]
    assert [axes["heads.1"][key] for key in ("size", "dead", "kept", "kept_stored")] == [4, 1, 3, 3]
    up, down = model.encoder.layer[0].intermediate.dense.weight, model.encoder.layer[0].output.dense.weight
    zeros = int((up == 0).sum()) + int((down == 0).sum())
    assert axes["ffn.0"]["zeros"] == zeros / (up.numel() + down.numel())
    assert 0.25 < axes["ffn.0"]["left"] < 0.35 and axes["heads.0"]["left"] == 0
    assert axes["ffn.0"]["least"] <= axes["ffn.0"]["solved"] <= axes["ffn.0"]["now"]


def test_zeros_without_structure_are_told_and_not_refused():
    (entry,) = [one for one in surveyed(masked_model(neurons=0.0, heads=0))["axes"] if one["axis"] == "ffn.1"]
    assert entry["dead"] == 0 and entry["kept"] == 48 and entry["least"] < 1


def test_a_model_that_nobody_pruned_is_refused_with_the_cure():
    with pytest.raises(TransformError, match="nothing is dead in this BertModel: no head or neuron .*pruned. Name"):
        surveyed(small_model(dtype=torch.float32))
