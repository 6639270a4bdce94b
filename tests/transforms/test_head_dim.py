import json

import pytest
import torch
from torch import nn
from transformers import BertModel

from icd_lib.errors import TransformError
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.checkpoint.uniform import to_uniform
from icd_lib.models.families import find_adapter
from icd_lib.transforms.head_dim import balance, reduce_head_dim
from tests.tiny_problems import HEADS, HIDDEN, LAYERS, assert_same_state, encode, small_batches, small_model, state_of

DIM = HIDDEN // HEADS
FRESH = small_batches(seed=9)
LINEARS = [(name, "self") for name in ("query", "key", "value")] + [("dense", "output")]


def reduced_model(model, kept, **changes):
    return reduce_head_dim(model, model, kept, small_batches(), **changes)


def output_error(model, reference, batches):
    return sum(float((encode(model, b) - encode(reference, b)).square().sum()) for b in batches)


def cut_rank(rows, rank):
    """Every head's rows (HEADS × DIM, n), made exactly this rank."""
    u, s, vh = torch.linalg.svd(rows.unflatten(0, (HEADS, DIM)), full_matrices=False)
    return (u[..., :rank] * s[:, None, :rank] @ vh[:, :rank]).flatten(0, 1)


def cut_writer(linear, rank):
    low = cut_rank(torch.cat([linear.weight, linear.bias[:, None]], 1), rank)
    linear.weight.copy_(low[:, :-1])
    linear.bias.copy_(low[:, -1])


@pytest.fixture(scope="module")
def dense():
    return small_model()


@pytest.mark.parametrize(("scores", "values"), [("query", "value"), ("key", "value"), ("query", "dense")])
def test_heads_of_that_rank_lose_nothing(scores, values):
    model = small_model(seed=4)
    for layer in model.encoder.layer:
        cut_writer(getattr(layer.attention.self, scores), 3)
        if values == "value":
            cut_writer(layer.attention.self.value, 3)
        else:
            consumer = layer.attention.output.dense.weight
            consumer.copy_(cut_rank(consumer.T, 3).T)
    reduced, meta = reduced_model(model, 3)
    for inputs in small_batches() + FRESH:
        assert torch.allclose(encode(reduced, inputs), encode(model, inputs), rtol=0, atol=1e-8)
    assert all(axis.loss < 1e-12 for axis in meta.axes.values())
    assert output_error(reduced_model(model, 2)[0], model, FRESH) > 1e-3


def test_more_dimensions_are_more_faithful(dense):
    """On the calibration batches and, with enough of them, on others too."""
    calibration = small_batches(count=12)
    models = [reduce_head_dim(dense, dense, kept, calibration)[0] for kept in (1, 3, 5, DIM - 1)]
    for batches in (calibration, FRESH):
        errors = [output_error(model, dense, batches) for model in models]
        assert all(after < 0.9 * before for before, after in zip(errors, errors[1:], strict=False)), errors


def test_the_best_directions_beat_the_first_ones(dense):
    """Against plain truncation of every head to its first dimensions."""
    plain = small_model()
    for layer in plain.encoder.layer:
        dead = torch.arange(HIDDEN) % DIM >= 4
        for name in ("query", "key", "value"):
            getattr(layer.attention.self, name).weight[dead] = 0
            getattr(layer.attention.self, name).bias[dead] = 0
    assert output_error(reduced_model(dense, 4)[0], dense, FRESH) < 0.5 * output_error(plain, dense, FRESH)


def test_shapes_attributes_and_report(dense):
    state = state_of(dense)
    reduced, meta = reduced_model(dense, 5, ridge=0.02)
    assert_same_state(dense, state)
    for layer, old in zip(reduced.encoder.layer, dense.encoder.layer, strict=True):
        attention = layer.attention.self
        sizes = (attention.num_attention_heads, attention.attention_head_size, attention.all_head_size)
        assert sizes == (HEADS, 5, HEADS * 5)
        assert attention.scaling == old.attention.self.scaling == DIM**-0.5
        for name, owner in LINEARS:
            linear = getattr(getattr(layer.attention, owner), name)
            shape = (HIDDEN, HEADS * 5) if owner == "output" else (HEADS * 5, HIDDEN)
            assert (linear.out_features, linear.in_features) == tuple(linear.weight.shape) == shape
            assert linear.bias.shape == shape[:1]
            assert linear.weight.is_contiguous() and not linear.weight.requires_grad
    names = {f"{kind}.{i}.{h}" for kind in ("qk", "v") for i in range(LAYERS) for h in range(HEADS)}
    assert set(meta.axes) == names and meta.delta_layout
    for axis in meta.axes.values():
        assert axis.alive.tolist() == [True] * 5 + [False] * (DIM - 5)
        assert not axis.saliency[:5].any() and 0 < axis.loss == pytest.approx(axis.saliency.sum())
        assert (axis.saliency[5:-1] >= axis.saliency[6:]).all()
    record = json.loads(json.dumps(meta.to_json(), allow_nan=False))
    assert (record["name"], record["notes"]) == ("head_dim", {"ridge": 0.02, "kept": 5})


def test_a_reduced_model_is_a_model_again(dense):
    """Its axes have the new sizes, and it can be reduced once more toward the dense one."""
    reduced, _ = reduced_model(dense, 5)
    axes = {axis.name: axis for axis in find_adapter(reduced).axes()}
    assert (axes["heads.0"].size, axes["qk.0.0"].size, axes["v.1.3"].size) == (HEADS, 5, 5)
    twice, meta = reduce_head_dim(reduced, dense, 3, small_batches())
    assert {axis.kept for axis in meta.axes.values()} == {3}
    assert twice.encoder.layer[1].attention.self.scaling == DIM**-0.5
    again = output_error(twice, dense, small_batches())
    assert again < 2 * output_error(reduced_model(dense, 3)[0], dense, small_batches())


def test_what_softmax_cannot_see_is_not_approximated(dense):
    """A constant added to every key changes no attention, so it must not cost any rank either."""
    shifted = small_model()
    shifted.encoder.layer[0].attention.self.key.bias += 5
    (here, _), (there, _) = reduced_model(dense, 4), reduced_model(shifted, 4)
    for inputs in FRESH:
        assert torch.allclose(encode(there, inputs), encode(here, inputs), rtol=0, atol=1e-8)


def test_consumers_make_up_for_the_loss(dense):
    """A ridge so strong that no consumer moves is worse on the data it was fit to."""
    free, held = (reduced_model(dense, 4, ridge=ridge)[0] for ridge in (0.01, 1e6))
    assert output_error(free, dense, small_batches()) < 0.8 * output_error(held, dense, small_batches())


def test_it_is_deterministic(dense):
    (first, meta), (second, again) = reduced_model(dense, 4), reduced_model(dense, 4)
    assert_same_state(first, state_of(second))
    assert meta.to_json() == again.to_json()


@pytest.mark.parametrize("kind", ["sequence", "masked_lm"])
def test_models_with_a_head_and_other_precision(kind):
    model = small_model(kind, dtype=torch.float32)
    reduced, _ = reduced_model(model, DIM - 1)
    wanted, got = (m(**FRESH[0]).logits for m in (model, reduced))
    assert got.dtype == torch.float32
    assert 0 < float((got - wanted).square().mean()) < 0.1 * float(wanted.square().mean())


def test_it_saves_loads_and_pads_to_stock_shapes(dense, tmp_path):
    reduced, _ = reduced_model(dense, 5)
    loaded = load_optimized(save_optimized(reduced, None, tmp_path / "small"))
    assert loaded.encoder.layer[0].attention.self.attention_head_size == 5
    uniform = to_uniform(reduced)
    assert uniform.encoder.layer[0].attention.self.query.out_features == HIDDEN
    stock = BertModel.from_pretrained(save_optimized(reduced, None, tmp_path / "stock", uniform=True)).double()
    for inputs in FRESH:
        wanted = encode(reduced, inputs)
        assert torch.equal(encode(loaded, inputs), wanted)
        assert torch.allclose(encode(uniform, inputs), wanted, rtol=0, atol=1e-10)
        assert torch.allclose(encode(stock, inputs), wanted, rtol=0, atol=1e-10)


def test_balance_is_the_best_low_rank_product():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 6, 20, generator=generator, dtype=torch.float64)
    left, right, sigma = balance(a @ a.mT, b @ b.mT, 4)
    u, s, vh = torch.linalg.svd(a.mT @ b)
    assert torch.allclose(sigma, s[:, :6])
    best = u[..., :4] * s[:, None, :4] @ vh[:, :4]
    assert torch.allclose((left @ a).mT @ (right @ b), best)
    for side in (left @ a, right @ b):
        assert torch.allclose(side @ side.mT, torch.diag_embed(sigma[:, :4]))


def test_balance_of_nothing_is_nothing():
    left, right, sigma = balance(torch.zeros(1, 3, 3).double(), torch.eye(3).double()[None], 2)
    assert not left.any() and not right.any() and not sigma.any()


@pytest.mark.parametrize("kept", [0, -1, DIM, DIM + 1, 2.0, True])
def test_a_size_that_does_not_fit_is_refused(dense, kept):
    state = state_of(dense)
    with pytest.raises(TransformError, match=f"keep a whole number from 1 to {DIM - 1}"):
        reduced_model(dense, kept)
    assert_same_state(dense, state)


def test_other_refusals(dense):
    with pytest.raises(TransformError, match="Linear has no attention"):
        reduce_head_dim(nn.Linear(2, 2), dense, 1, small_batches())
    with pytest.raises(TransformError, match="calibration is empty"):
        reduce_head_dim(dense, dense, 4, [])
