"""Models pruned elsewhere: dead elements of every family are found and removed, and the function stays the same."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrizations, prune

from icd_lib.axes.axis import slot_index, slot_tensor
from icd_lib.axes.double import KeepDouble
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.models.families import FAMILIES, find_adapter
from icd_lib.transforms.masked.compact import remove_dead
from icd_lib.transforms.masked.plain import plain_copy
from tests.extend import toy_family
from tests.tiny_families import CASES, FACTORIES
from tests.tiny_problems import assert_same_state, small_batches, small_model, state_of


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(FAMILIES._rows, "toy", toy_family.FAMILY)


def widths(removed) -> dict[str, int]:
    return {entry.axis: entry.kept for entry in removed}


def assert_same_function(model, other, inputs):
    with KeepDouble():
        assert outputs_error(model_outputs(other, inputs), model_outputs(model, inputs)) < 1e-10


@pytest.mark.parametrize("family, kind", CASES)
def test_elements_that_nobody_reads_leave(family, kind):
    model, inputs = copy.deepcopy(FACTORIES[family][kind]())
    chosen = {}
    with torch.no_grad():
        axes = {axis.name: axis for axis in find_adapter(model).axes()}
        for block in find_adapter(model).blocks():
            if axes[block.axis].fixed_because:
                continue
            chosen[block.axis] = block.elements - block.elements // 2
            for linear in (block.consumer, *(reader.linear for reader in block.readers)):
                linear.weight[:, : block.elements // 2 * block.unit] = 0
    untouched = state_of(model)
    smaller, removed, error = remove_dead(model, [inputs], tile=1)
    assert widths(removed).items() >= chosen.items()
    assert error < 1e-10
    assert_same_state(model, untouched)
    assert_same_function(model, smaller, inputs)
    sizes = [sum(p.numel() for p in each.parameters()) for each in (smaller, model)]
    assert sizes[0] < sizes[1] or not chosen


@pytest.mark.parametrize("family, kind", CASES)
def test_a_model_without_zeros_stays_as_it_is(family, kind):
    model, inputs = copy.deepcopy(FACTORIES[family][kind]())
    smaller, removed, error = remove_dead(model, [inputs], tile=4)
    assert error < 1e-12 and all(entry.dead == 0 and entry.kept == entry.size for entry in removed)
    assert_same_state(smaller, state_of(model))


@pytest.mark.parametrize("family, kind", [case for case in CASES if case[0] == "mamba"])
def test_channels_and_states_that_are_never_written_leave(family, kind):
    model, inputs = copy.deepcopy(FACTORIES[family][kind]())
    adapter = find_adapter(model)
    axes = {axis.name: axis for axis in adapter.axes()}
    terms = [term for item in adapter.blocks() for term in item.terms]
    with torch.no_grad():
        for term in terms:
            for slot in axes[term.axis].slots:
                if slot.dim == 0 and term.elements > 1:  # the rows of B and C
                    rows = slot_index(slot, term.elements, torch.tensor([0]))
                    slot_tensor(model, slot)[rows] = 0
    smaller, removed, _ = remove_dead(model, [inputs], tile=1)
    for term in terms:
        assert widths(removed)[term.axis] == max(term.elements - 1, 1)
    assert_same_function(model, smaller, inputs)


def test_a_channel_that_something_else_reads_stays():
    model, inputs = copy.deepcopy(FACTORIES["mamba"]["causal"]())
    block = next(find_adapter(model).blocks())
    with torch.no_grad():
        block.consumer.weight[:, :10] = 0
    assert widths(remove_dead(model, [inputs], tile=1)[1])[block.axis] == block.elements


def bert():
    return small_model("encoder"), small_batches(1)[0]


def test_what_a_neuron_or_a_head_always_says_goes_into_the_bias():
    model, inputs = bert()
    layer = model.encoder.layer[0]
    dim = layer.attention.self.attention_head_size
    with torch.no_grad():
        layer.intermediate.dense.weight[5:9] = 0
        layer.attention.self.value.weight[dim : 2 * dim] = 0
    before = layer.output.dense.bias.clone()
    smaller, removed, _ = remove_dead(model, [inputs], tile=1)
    sizes = {entry.axis: entry.size for entry in removed}
    assert widths(removed)["ffn.0"] == sizes["ffn.0"] - 4 and widths(removed)["heads.0"] == sizes["heads.0"] - 1
    assert not torch.equal(smaller.encoder.layer[0].output.dense.bias, before)
    assert_same_function(model, smaller, inputs)


def test_a_head_whose_queries_are_zero_still_says_something():
    model, inputs = bert()
    attention = model.encoder.layer[0].attention.self
    with torch.no_grad():
        attention.query.weight[: attention.attention_head_size] = 0
    removed = remove_dead(model, [inputs], tile=1)[1]
    assert "heads.0" in widths(removed) and all(entry.dead == 0 for entry in removed)


def test_a_whole_tile_leaves_or_none():
    model, inputs = bert()
    dense = model.encoder.layer[0].output.dense
    with torch.no_grad():
        dense.weight[:, ::3] = 0
    size = dense.in_features
    dead = len(range(0, size, 3))
    smaller, removed, _ = remove_dead(model, [inputs], tile=8)
    first = next(entry for entry in removed if entry.axis == "ffn.0")
    assert (first.size, first.dead) == (size, dead)
    assert first.kept == -(-(size - dead) // 8) * 8
    assert_same_function(model, smaller, inputs)


def test_an_axis_that_is_wholly_dead_keeps_one_tile():
    model, inputs = bert()
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight.zero_()
    smaller, removed, _ = remove_dead(model, [inputs], tile=8)
    assert widths(removed)["ffn.1"] == 8
    assert_same_function(model, smaller, inputs)


def test_masks_of_torch_prune_are_worked_in_and_the_given_model_keeps_them():
    model, inputs = bert()
    model.requires_grad_(True)
    for layer in model.encoder.layer:
        prune.ln_structured(layer.intermediate.dense, "weight", 0.5, n=2, dim=0)
        prune.l1_unstructured(layer.output.dense, "weight", 0.3)
        prune.l1_unstructured(layer.output.dense, "bias", 0.3)
    model(**inputs).last_hidden_state.sum().backward()  # the masked weights are no leaves then
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    smaller, removed, _ = remove_dead(model, [inputs], tile=1)
    assert all(entry.kept == entry.size // 2 for entry in removed if entry.kind == "ffn")
    assert prune.is_pruned(model) and not prune.is_pruned(smaller)
    assert_same_function(model, smaller, inputs)


def test_parametrized_weights_become_plain_ones():
    model, inputs = bert()
    parametrizations.weight_norm(model.encoder.layer[0].intermediate.dense)
    plain = plain_copy(model)
    assert "parametrizations" not in "".join(plain.state_dict())
    assert "parametrizations" in "".join(model.state_dict())
    assert_same_function(model, plain, inputs)
    assert np.all([entry.dead == 0 for entry in remove_dead(model, [inputs], tile=1)[1]])
