"""A Mamba rounded in groups: which matrices are, in every order, folded into channels and residual stream."""

import copy

import numpy as np
import pytest
import torch

from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import TransformError
from icd_lib.kernels import use_fast_scan
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.families import find_adapter
from icd_lib.models.grouped import check_contiguous, grid_of, grouped_modules
from icd_lib.models.quantized import check_scales
from icd_lib.transforms.base import Given, Manner
from icd_lib.transforms.effects import Groups
from icd_lib.transforms.observed import Findings, Observed
from icd_lib.transforms.quantization.options import QuantizationOptions
from icd_lib.transforms.quantization.transform import TRANSFORM
from icd_lib.transforms.weights.activity import column_activity, shared_activity
from icd_lib.transforms.weights.fold import fold
from icd_lib.transforms.weights.grids import Spec
from icd_lib.transforms.weights.orders import Columns
from icd_lib.transforms.weights.rounding import Recipe, round_embeddings, round_weights
from icd_lib.transforms.weights.sensitivity import lone_losses
from tests.tiny_grouped import batches, loss_of
from tests.tiny_mambas import LAYERS, RANK, STATES, VOCAB, tiny_mamba, tokens
from tests.tiny_problems import assert_same_state, state_of

HIDDEN, INNER, SPEC = 48, 96, Spec(4, 8)
PROJECTIONS = {
    f"backbone.layers.{layer}.mixer.{name}" for layer in range(LAYERS) for name in ("in_proj", "x_proj", "out_proj")
}
SHARED = {"residual", *(f"inner.{layer}" for layer in range(LAYERS))}


def mamba(seed=0, dtype=torch.float32, **changes):
    return tiny_mamba(seed=seed, dtype=dtype, hidden_size=HIDDEN, **changes)


def recipe(model, order="descending", **changes):
    columns = Columns.in_model(find_adapter(model).axes())
    shared = shared_activity(columns, column_activity(model, batches()))
    return Recipe(**{"spec_of": lambda name: SPEC, "order": order, "shared": shared} | changes)


def test_the_projections_are_rounded_and_what_drives_the_state_is_not():
    model = mamba()
    found = round_weights(model, batches(), Recipe(spec_of=lambda name: SPEC))
    assert set(found.done) == PROJECTIONS == set(grouped_modules(found.model))
    state, before = found.model.state_dict(), model.state_dict()
    left = [key for key in before if key.split(".")[-2] not in ("in_proj", "x_proj", "out_proj")]
    assert any(".dt_proj." in key for key in left) and any(key.endswith("A_log") for key in left)
    assert all(torch.equal(state[key], before[key]) for key in left)


def test_every_byte_is_counted():
    found = round_weights(mamba(), batches(), Recipe(spec_of=lambda name: SPEC, order="stored"))
    rows = {"in_proj": (2 * INNER, HIDDEN), "x_proj": (RANK + 2 * STATES, INNER), "out_proj": (HIDDEN, INNER)}
    for name, held in found.done.items():
        out, columns = rows[name.rpartition(".")[2]]
        groups = columns // 8
        assert held.bytes == out * (columns // 2 + 2 * groups + groups // 2) and held.weights == out * columns
    assert found.bits_per_weight == pytest.approx(4 + 16 / 8 + 4 / 8)


@pytest.mark.parametrize("order", ["stored", "random", "descending"])
def test_a_folded_order_leaves_nothing_to_gather(order):
    model = mamba()
    state = state_of(model)
    found = round_weights(model, batches(), recipe(model, order))
    assert_same_state(model, state)
    assert set(found.perms) == SHARED
    folded = copy.deepcopy(found.model)
    error = fold(folded, found.perms, batches(1)[0])
    assert error <= 1e-6 and (error > 0) == (order != "stored")
    check_contiguous(folded)
    check_scales(folded, find_adapter(folded).axes())
    for inputs in batches(2, seed=9):
        assert outputs_error(model_outputs(folded, inputs), model_outputs(found.model, inputs)) <= 1e-5
    if order != "stored":
        with pytest.raises(TransformError, match="are not stretches of its columns"):
            check_contiguous(found.model)


def test_folded_then_rounded_in_stored_order_is_the_same():
    """Up to rounding: sums are taken in another order, and a value at an edge may fall on its other side."""
    model = mamba(dtype=torch.float64)
    found = round_weights(model, batches(), recipe(model))
    fold(found.model, found.perms, batches(1)[0])
    first = copy.deepcopy(model)
    fold(first, found.perms, batches(1)[0])
    again = round_weights(first, batches(), Recipe(spec_of=lambda name: SPEC, order="stored"))
    assert grouped_modules(found.model)
    for name, module in grouped_modules(found.model).items():
        twin = again.model.get_submodule(name)
        assert (module.weight != twin.weight).double().mean() < 0.01, name
        assert torch.equal(grid_of(module).group, grid_of(twin).group), name


def test_folding_changes_no_token():
    model = mamba()
    found = round_weights(model, batches(), recipe(model))
    folded = copy.deepcopy(found.model)
    fold(folded, found.perms, batches(1)[0])
    texts = [
        use_fast_scan(item).generate(tokens(2, 6), max_new_tokens=24, do_sample=False) for item in (found.model, folded)
    ]
    assert torch.equal(*texts)


def test_gptq_in_the_folded_order_loses_less_than_nearest():
    losses = {}
    for seed in range(3):
        model = mamba(seed=seed)
        tried = {
            "nearest": recipe(model, "stored", compensate=False),
            "gptq": recipe(model, "stored"),
            "folded": recipe(model),
        }
        for name, given in tried.items():
            losses.setdefault(name, []).append(loss_of(round_weights(model, batches(6), given).model, model))
    mean = {name: np.mean(values) for name, values in losses.items()}
    assert mean["gptq"] < 0.8 * mean["nearest"] and mean["folded"] < 0.8 * mean["nearest"]


def test_a_tied_head_takes_the_embedding_s_grid_and_stays_tied(tmp_path):
    model = round_weights(mamba(), batches(), Recipe(spec_of=lambda name: SPEC, order="stored")).model
    assert round_embeddings(model) == ["backbone.embeddings"]
    assert model.lm_head.weight is model.backbone.embeddings.weight
    assert grid_of(model.backbone.embeddings).packed_bytes == VOCAB * (HIDDEN + 2)
    loaded = load_optimized(save_optimized(model, None, tmp_path / "model"))
    assert loaded.lm_head.weight is loaded.backbone.embeddings.weight
    for inputs in batches(1, seed=7):
        assert outputs_error(model_outputs(loaded, inputs), model_outputs(use_fast_scan(model), inputs)) == 0


@pytest.mark.parametrize("folds", [True, False], ids=["iterative", "linear"])
@pytest.mark.parametrize("precision", ["int8_weights", "int4_weights"])
def test_the_loop_gets_channels_in_groups_and_a_folded_stream(folds, precision):
    model = mamba()
    manner = Manner() if folds else Manner(orders={f"inner.{layer}": np.arange(INNER) for layer in range(LAYERS)})
    given = dict(QuantizationOptions(precision=precision, group=8))
    evidence = TRANSFORM.evidence(Given(Observed(model, batches(), batches()), Findings(), given, manner))
    made, meta = TRANSFORM.apply(evidence, TRANSFORM.plan(evidence, 0.0, {}), model, {})
    assert meta.notes["folded"]["axes"] == (["residual"] if folds else [])
    assert meta.notes["embeddings"] == ["backbone.embeddings"]
    for layer in range(LAYERS):
        effect = meta.axes[f"inner.{layer}"]
        assert isinstance(effect, Groups) and len(np.unique(effect.groups)) == INNER // 8
        readers = [made.get_submodule(f"backbone.layers.{layer}.mixer.{name}") for name in ("x_proj", "out_proj")]
        assert torch.equal(*(grid_of(reader).group for reader in readers)), "both lie in one order"
        assert np.array_equal(effect.groups, np.arange(INNER) // 8) != folds


def test_lone_losses_are_measured_for_every_projection():
    losses = lone_losses(mamba(), batches(1), SPEC)
    assert set(losses) == PROJECTIONS and all(0 < value < 1 for value in losses.values())


def test_a_group_that_divides_no_projection_is_refused_by_name():
    with pytest.raises(TransformError, match=r"48 columns of 'backbone.layers.0.mixer.in_proj' do not fall into"):
        round_weights(mamba(), batches(), Recipe(spec_of=lambda name: Spec(4, 64)))
