from dataclasses import replace

import numpy as np
import pytest
import torch

from icd_lib.axes.axis import Slot
from icd_lib.axes.compact import compact
from icd_lib.axes.permutation import check_permutation, invert_permutation
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import AxisError
from icd_lib.models.families import find_adapter
from tests.tiny_problems import assert_same_state, small_batches, small_model, state_of, three_cycle


def test_all_axes_at_once_and_back():
    model, (inputs,) = small_model("masked_lm"), small_batches(1)
    before, state, generator = model_outputs(model, inputs), state_of(model), np.random.default_rng(1)
    axes = find_adapter(model).axes()
    perms = {axis.name: generator.permutation(axis.size) for axis in axes}
    for axis in axes:
        permute(model, axis, perms[axis.name])
    assert outputs_error(model_outputs(model, inputs), before) <= 1e-10
    for axis in reversed(axes):
        permute(model, axis, invert_permutation(perms[axis.name]))
    for name, tensor in state.items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_permutation_gathers():
    model = small_model()
    axis, perm = find_adapter(model).axis("ffn.1"), three_cycle(48)
    old = model.encoder.layer[1].intermediate.dense.weight.clone()
    permute(model, axis, perm)
    assert torch.equal(model.encoder.layer[1].intermediate.dense.weight, old[torch.from_numpy(perm)])


@pytest.mark.parametrize("tied", [True, False])
def test_vocab_of_tied_and_untied_decoders(tied):
    model, (inputs,) = small_model("masked_lm", tie_word_embeddings=tied), small_batches(1)
    shared = model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert shared == tied
    before, adapter = model_outputs(model, inputs), find_adapter(model)
    for name in ("vocab", "residual"):
        axis = adapter.axis(name)
        permute(model, axis, np.random.default_rng(2).permutation(axis.size))
        permute(model, axis, three_cycle(axis.size))
        assert outputs_error(model_outputs(model, inputs), before) <= 1e-10
    assert (model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight) == tied


@pytest.mark.parametrize("perm", [np.arange(47), np.r_[np.arange(47), 0], np.arange(48.0)])
def test_bad_permutation_leaves_the_model_alone(perm):
    model = small_model()
    state = state_of(model)
    with pytest.raises(AxisError):
        permute(model, find_adapter(model).axis("ffn.0"), perm)
    assert_same_state(model, state)


def test_stale_axis_is_refused():
    model = small_model()
    stale = find_adapter(model).axis("ffn.0")
    compact(model, stale, np.arange(48) < 40)
    state = state_of(model)
    with pytest.raises(AxisError, match="needs 48 entries along dim 0 .* which has 40.*find_axes"):
        permute(model, stale, three_cycle(48))
    assert_same_state(model, state)


def test_axis_of_another_model_is_refused():
    axis = find_adapter(small_model("sequence")).axis("ffn.0")
    model = small_model()
    with pytest.raises(AxisError, match="no parameter 'bert.encoder"):
        permute(model, axis, three_cycle(48))


def test_a_later_slot_that_does_not_fit_leaves_earlier_slots_alone():
    model = small_model()
    axis = find_adapter(model).axis("ffn.0")
    bad = replace(axis, slots=(*axis.slots, Slot("encoder.layer.0.attention.self.query.weight", 0)))
    state = state_of(model)
    with pytest.raises(AxisError, match="self.query.weight"):
        permute(model, bad, check_permutation(three_cycle(48), 48))
    assert_same_state(model, state)
