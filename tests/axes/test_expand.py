import copy

import numpy as np
import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.axes.expand import expand
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.models.adapter import find_adapter
from tests.tiny_problems import assert_same_state, small_batches, small_model, state_of


@pytest.mark.parametrize("kind", ["encoder", "masked_lm"])
def test_expanding_a_compacted_model_keeps_its_function(kind):
    model, (inputs,) = small_model(kind), small_batches(1)
    state, rng, places = state_of(model), np.random.default_rng(0), {}
    small = copy.deepcopy(model)
    for axis in find_adapter(model).axes():
        if axis.kind in ("ffn", "heads"):
            places[axis.name] = np.sort(rng.permutation(axis.size)[: axis.size * 2 // 3])
            compact(small, axis, np.isin(np.arange(axis.size), places[axis.name]))
    wanted = model_outputs(small, inputs)
    whole = expand(small, model, find_adapter(model).axes(), places)
    assert outputs_error(model_outputs(whole, inputs), wanted) <= 1e-10
    assert [p.shape for p in whole.parameters()] == [p.shape for p in model.parameters()]
    assert_same_state(model, state)
    # The same elements at other places: another layout of one function.
    moved = {name: rng.permutation(place) for name, place in places.items()}
    elsewhere = expand(small, model, find_adapter(model).axes(), moved)
    assert outputs_error(model_outputs(elsewhere, inputs), wanted) <= 1e-10


def test_removed_elements_are_exact_zeros():
    model = small_model()
    small, kept = copy.deepcopy(model), np.arange(48) % 3 > 0
    compact(small, find_adapter(model).axis("ffn.0"), kept)
    whole = expand(small, model, find_adapter(model).axes(), {"ffn.0": np.flatnonzero(kept)})
    weight = whole.encoder.layer[0].output.dense.weight
    assert (weight[:, torch.from_numpy(~kept)] == 0).all()
    assert torch.equal(
        weight[:, torch.from_numpy(kept)], model.encoder.layer[0].output.dense.weight[:, torch.from_numpy(kept)]
    )
