"""Orders of columns: what the axes allow, what is summed, and that the model permuted by them has them as they lie."""

import copy

import numpy as np
import pytest
import torch

from icd_lib.axes.permute import permute
from icd_lib.errors import AxisError, TransformError
from icd_lib.models.families import find_adapter
from icd_lib.transforms.weights import fold as fold_module
from icd_lib.transforms.weights.fold import fold
from icd_lib.transforms.weights.orders import Columns, order_of
from tests.tiny_grouped import batches, decoder
from tests.tiny_problems import assert_same_state, state_of, three_cycle

DOWN, OUT, GATE = "model.layers.1.mlp.down_proj", "model.layers.0.self_attn.o_proj", "model.layers.1.mlp.gate_proj"


def random_perms(axes, kinds):
    generator = np.random.default_rng(6)
    return {axis.name: generator.permutation(axis.size) for axis in axes if axis.kind in kinds}


@pytest.mark.parametrize(
    "name, kinds", [(DOWN, ("ffn",)), (GATE, ("residual",)), (OUT, ("v",)), (OUT, ("v", "q_heads"))]
)
def test_a_matrix_has_its_order_once_its_axes_are_permuted(name, kinds):
    model = decoder()
    axes = find_adapter(model).axes()
    perms, columns = random_perms(axes, kinds), Columns.in_model(axes)
    before = model.get_submodule(name).weight.clone()
    order = columns.order(name, before.shape[1], perms)
    assert not torch.equal(order, torch.arange(len(order)))
    moved = copy.deepcopy(model)
    for axis in axes:
        if axis.name in perms:
            permute(moved, axis, perms[axis.name])
    assert torch.equal(moved.get_submodule(name).weight, before[:, order])


def test_a_value_dim_counts_in_every_query_head_that_reads_it():
    model = decoder()
    columns = Columns.in_model(find_adapter(model).axes())
    activity = torch.rand(48, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scaled = (activity / activity.mean()).numpy().reshape(3, 2, 8)  # group, query head of it, dim
    found = columns.evidence(OUT, activity)
    for group in range(3):
        assert np.allclose(found[f"v.0.{group}"], scaled[group].sum(0))
        assert np.allclose(found[f"q_heads.0.{group}"], scaled[group].sum(1))
    assert set(columns.evidence(GATE, activity)) == {"residual"}
    assert set(columns.evidence(DOWN, torch.ones(80))) == {"ffn.1"}


def test_the_residual_of_a_model_that_returns_it_stays():
    columns = Columns.in_model(find_adapter(decoder("backbone")).axes())
    assert "layers.1.mlp.gate_proj" not in columns.of and "layers.1.mlp.down_proj" in columns.of


def test_orders_by_name():
    activity, generator = np.array([1.0, 5.0, 1.0, 2.0]), np.random.default_rng(0)
    assert order_of("stored", activity, generator).tolist() == [0, 1, 2, 3]
    assert sorted(order_of("random", activity, generator).tolist()) == [0, 1, 2, 3]
    with pytest.raises(TransformError, match="an order is one of stored, random, descending, got 'best'"):
        order_of("best", activity, generator)


def test_folding_keeps_the_function():
    model = decoder(dtype=torch.float64)
    perms = random_perms(find_adapter(model).axes(), ("ffn", "v", "q_heads", "residual"))
    folded, inputs = copy.deepcopy(model), batches(1)[0]
    assert 0 < fold(folded, perms, inputs) <= 1e-6
    assert torch.equal(
        folded.get_submodule(DOWN).weight, model.get_submodule(DOWN).weight[perms["residual"]][:, perms["ffn.1"]]
    )
    with torch.inference_mode():
        assert torch.allclose(folded(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5), (
            "its norms are float32 inside"
        )
    assert fold(folded, {"ffn.0": np.arange(80)}, inputs) == 0.0


def test_an_order_that_would_change_the_function_is_refused(monkeypatch):
    model = decoder(dtype=torch.float64)
    state = state_of(model)

    def broken(target, perms):
        target.model.layers[0].mlp.down_proj.weight.data = target.model.layers[0].mlp.down_proj.weight[
            :, torch.from_numpy(perms["ffn.0"])
        ]

    monkeypatch.setattr(fold_module, "_permute", broken)
    with pytest.raises(AxisError, match="the order of 1 axes, first 'ffn.0', changes the outputs by"):
        fold(model, {"ffn.0": three_cycle(80)}, batches(1)[0])
    assert_same_state(model, state)
