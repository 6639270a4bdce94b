import copy

import numpy as np
import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.axes.permute import permute
from icd_lib.errors import TransformError
from icd_lib.models.families import find_adapter
from icd_lib.transforms import streams
from icd_lib.transforms.sparsity.allocate import PrunePlan
from icd_lib.transforms.sparsity.prune import consumer_moments, prune, prune_closed_form
from icd_lib.transforms.sparsity.sensitivity import eliminations
from tests.tiny_problems import assert_same_state, encode, small_batches, small_model, state_of

PLAN = PrunePlan({"ffn.0": 24, "ffn.1": 32, "heads.0": 2, "heads.1": 3})
SINGLE = {"ffn": 1, "heads": 1}
TILES = {"ffn": 8, "heads": 1}


def pruned_model(model, target=None, plan=PLAN, tile=SINGLE, **changes):
    return prune(model, model if target is None else target, plan, small_batches(), tile=tile, **changes)


def output_error(model, reference):
    return sum(float((encode(model, b) - encode(reference, b)).square().sum()) for b in small_batches())


@pytest.fixture(scope="module")
def dense():
    return small_model()


@pytest.mark.parametrize("tile", [SINGLE, TILES])
def test_the_plan_is_followed_and_nothing_given_is_changed(dense, tile):
    state = state_of(dense)
    pruned, meta = pruned_model(dense, tile=tile)
    assert_same_state(dense, state)
    assert {name: s.kept for name, s in meta.axes.items()} == PLAN.kept
    assert meta.delta_layout
    assert [p.shape for p in pruned.parameters()] == [p.shape for p in dense.parameters()]
    for name, axis in meta.axes.items():
        granule = tile[axis.kind]
        tiles = axis.alive.reshape(-1, granule)
        assert (tiles.all(1) | ~tiles.any(1)).all(), name
        assert (axis.saliency[axis.alive] == 0).all()
        assert (axis.saliency[~axis.alive] > 0).all()
        assert axis.loss > 0


def test_single_elements_are_scattered_over_the_tiles(dense):
    _, meta = pruned_model(dense)
    tiles = meta.axes["ffn.0"].alive.reshape(-1, 8)
    assert not (tiles.all(1) | ~tiles.any(1)).all()


def test_the_dead_are_exact_zeros_and_compacting_them_changes_nothing(dense):
    pruned, meta = pruned_model(dense)
    masked = [encode(pruned, b) for b in small_batches()]
    for axis in find_adapter(pruned).axes():
        if axis.name in meta.axes:
            compact(pruned, axis, meta.axes[axis.name].alive)
    assert pruned.encoder.layer[0].intermediate.dense.out_features == 24
    for batch, wanted in zip(small_batches(), masked, strict=True):
        assert torch.allclose(encode(pruned, batch), wanted, rtol=0, atol=1e-10)


def test_pruning_is_deterministic(dense):
    (first, meta), (second, again) = pruned_model(dense), pruned_model(dense)
    assert_same_state(first, state_of(second))
    assert meta.to_json() == again.to_json()


def test_goals_can_be_used_again_and_give_the_same(dense, monkeypatch):
    alone, _ = pruned_model(dense)
    for share in (streams.KEPT_SHARE, 0.0):  # kept, and computed again
        monkeypatch.setattr(streams, "KEPT_SHARE", share)
        goals = streams.Goals(find_adapter(dense), small_batches())
        for _ in range(2):
            assert_same_state(pruned_model(dense, goals=goals)[0], state_of(alone))
        assert len(goals._kept) == (len(list(find_adapter(dense).blocks())) if share else 0)


@pytest.mark.parametrize("tile", [SINGLE, TILES])
def test_compensation_beats_none(dense, tile):
    compensated, _ = pruned_model(dense, tile=tile)
    plain, meta = pruned_model(dense, tile=tile, compensate=False)
    assert output_error(compensated, dense) < 0.9 * output_error(plain, dense)
    alive = torch.from_numpy(meta.axes["ffn.0"].alive)
    kept, original = plain.encoder.layer[0].output.dense, dense.encoder.layer[0].output.dense
    assert torch.equal(kept.weight[:, alive], original.weight[:, alive])
    assert torch.equal(kept.bias, original.bias)


def test_choosing_elements_beats_choosing_tiles(dense):
    assert output_error(pruned_model(dense)[0], dense) < output_error(pruned_model(dense, tile=TILES)[0], dense)


def test_keeping_everything_keeps_the_function(dense):
    for plan in (PrunePlan({}), PrunePlan({"ffn.0": 48, "heads.1": 4})):
        pruned, meta = pruned_model(dense, plan=plan, tile=TILES)
        assert not meta.delta_layout
        assert all(axis.alive.all() and not axis.saliency.any() and axis.loss == 0 for axis in meta.axes.values())
        for batch in small_batches():
            assert torch.allclose(encode(pruned, batch), encode(dense, batch), atol=1e-8)


def test_a_layout_changes_nothing_for_single_elements(dense):
    permuted, orders, rng = copy.deepcopy(dense), {}, np.random.default_rng(1)
    for axis in find_adapter(permuted).axes():
        if axis.kind in TILES:
            orders[axis.name] = rng.permutation(axis.size)
            permute(permuted, axis, orders[axis.name])
    (here, meta), (there, moved) = pruned_model(dense), pruned_model(permuted, dense)
    for name, perm in orders.items():
        assert np.array_equal(moved.axes[name].alive, meta.axes[name].alive[perm])
        assert np.allclose(moved.axes[name].saliency, meta.axes[name].saliency[perm], rtol=1e-6)
    for batch in small_batches():
        assert torch.allclose(encode(there, batch), encode(here, batch), atol=1e-6)


def test_a_second_round_follows_the_dense_model_and_not_the_first_round(dense):
    first, _ = pruned_model(dense, plan=PrunePlan({"ffn.0": 32}))
    second, _ = pruned_model(first, dense, plan=PrunePlan({}))
    assert output_error(second, dense) < output_error(first, dense)


def test_later_blocks_make_up_for_what_earlier_ones_lost(dense):
    pruned, _ = pruned_model(dense, plan=PrunePlan({"ffn.0": 8}))
    careless = copy.deepcopy(pruned)
    careless.encoder.layer[1].load_state_dict(dense.encoder.layer[1].state_dict())
    assert output_error(pruned, dense) < 0.95 * output_error(careless, dense)


def test_saliency_adds_up_to_the_loss(dense):
    _, meta = pruned_model(dense, ridge=0.02)
    assert meta.notes["ridge"] == 0.02
    _, twice = pruned_model(dense, plan=PrunePlan({"ffn.0": 20}))
    _, once = pruned_model(dense, plan=PrunePlan({"ffn.0": 40}))
    a, b = once.axes["ffn.0"], twice.axes["ffn.0"]
    assert b.loss > a.loss
    # The greedy path is one: a stronger plan goes on where the weaker one stopped.
    assert (b.alive <= a.alive).all()
    assert np.allclose(b.saliency[~a.alive], a.saliency[~a.alive])
    assert a.loss / b.loss == pytest.approx(a.saliency.sum() / b.saliency.sum())


def test_the_report_of_an_axis(dense):
    _, meta = pruned_model(dense, tile=TILES)
    record = meta.to_json()
    assert (record["name"], record["tile"], record["delta_layout"]) == ("sparsity", 8, True)
    ffn = next(axis for axis in record["axes"] if axis["axis"] == "ffn.1")
    assert (ffn["size"], ffn["kept"], len(ffn["alive"]), len(ffn["saliency"])) == (48, 32, 32, 48)


@pytest.mark.parametrize(
    ("kept", "tile", "complaint"),
    [
        ({"ffn.7": 8}, SINGLE, "names axis 'ffn.7'"),
        ({"ffn.0": 0}, SINGLE, "keep between 1 and 48"),
        ({"ffn.0": 49}, SINGLE, "keep between 1 and 48"),
        ({"ffn.0": 20}, TILES, "pruned in tiles of 8; 20 is no whole number"),
        ({"ffn.0": 35}, {"ffn": 5, "heads": 1}, "pruned in tiles of 5"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(dense, kept, tile, complaint):
    state = state_of(dense)
    with pytest.raises(TransformError, match=complaint):
        pruned_model(dense, plan=PrunePlan(kept), tile=tile)
    assert_same_state(dense, state)


def test_empty_calibration_is_refused(dense):
    with pytest.raises(TransformError, match="calibration is empty"):
        prune(dense, dense, PLAN, [], tile=SINGLE)


RIDGE = 0.01


@pytest.fixture(scope="module")
def moments(dense):
    return consumer_moments(find_adapter(dense), small_batches())


def drafted(model, plan, moments, tile=SINGLE, orders=None):
    paths = eliminations(find_adapter(model), moments, tile, RIDGE, orders or {})
    return prune_closed_form(model, PrunePlan(plan), moments, paths, tile=tile, ridge=RIDGE, orders=orders)


def consumers(model, axis):
    """What reads the axis and what makes it: the parameters that pruning the axis changes."""
    layer = model.encoder.layer[int(axis[-1])]
    if axis.startswith("heads"):
        attention = layer.attention.self
        return [layer.attention.output.dense, attention.query, attention.key, attention.value]
    return [layer.output.dense, layer.intermediate.dense]


@pytest.mark.parametrize("tile", [SINGLE, TILES])
@pytest.mark.parametrize(("axis", "kept"), [("heads.0", 2), ("ffn.0", 24), ("heads.1", 3), ("ffn.1", 8)])
def test_a_draft_is_what_pruning_does_to_the_only_block_that_is_pruned(dense, moments, axis, kept, tile):
    """Up to that block the stream is dense's, so both solve one least-squares problem; later blocks then differ."""
    pruned, meta = pruned_model(dense, plan=PrunePlan({axis: kept}), tile=tile, ridge=RIDGE)
    draft, alive = drafted(dense, {axis: kept}, moments, tile)
    assert np.array_equal(alive[axis], meta.axes[axis].alive) and alive[axis].sum() == kept
    for one, other in zip(consumers(draft, axis), consumers(pruned, axis), strict=True):
        assert torch.allclose(one.weight, other.weight, rtol=0, atol=1e-6)
        assert torch.allclose(one.bias, other.bias, rtol=0, atol=1e-6)
    assert not torch.equal(consumers(draft, axis)[0].weight, consumers(dense, axis)[0].weight)


@pytest.mark.parametrize("seed", [0, 1])
def test_tiles_of_a_layout_can_be_drafted_in_the_dense_order(dense, moments, seed):
    """The same tiles go, and the same weights are left, as if the model had been permuted and pruned there."""
    permuted, orders, rng = copy.deepcopy(dense), {}, np.random.default_rng(seed)
    for axis in find_adapter(permuted).axes():
        if axis.kind in TILES:
            orders[axis.name] = rng.permutation(axis.size)
            permute(permuted, axis, orders[axis.name])
    draft, alive = drafted(dense, {"ffn.0": 24}, moments, TILES, orders)
    there, meta = pruned_model(permuted, dense, plan=PrunePlan({"ffn.0": 24}), tile=TILES, ridge=RIDGE)
    order = orders["ffn.0"]
    assert np.array_equal(alive["ffn.0"][order], meta.axes["ffn.0"].alive)
    tiles = alive["ffn.0"][order].reshape(-1, 8)
    assert (tiles.all(1) | ~tiles.any(1)).all() and not alive["ffn.0"].reshape(-1, 8).all(1).sum() == 3
    mine, other = draft.encoder.layer[0].output.dense, there.encoder.layer[0].output.dense
    assert torch.allclose(mine.weight[:, torch.from_numpy(order)], other.weight, rtol=0, atol=1e-6)
    assert torch.allclose(mine.bias, other.bias, rtol=0, atol=1e-6)


def test_a_draft_changes_nothing_that_was_given_and_its_dead_are_exact_zeros(dense, moments):
    state = state_of(dense)
    draft, alive = drafted(dense, PLAN.kept, moments)
    assert_same_state(dense, state)
    assert {axis: int(mask.sum()) for axis, mask in alive.items()} == PLAN.kept
    masked = [encode(draft, b) for b in small_batches()]
    for axis in find_adapter(draft).axes():
        if axis.name in alive:
            compact(draft, axis, alive[axis.name])
    assert draft.encoder.layer[0].intermediate.dense.out_features == 24
    for batch, wanted in zip(small_batches(), masked, strict=True):
        assert torch.allclose(encode(draft, batch), wanted, rtol=0, atol=1e-10)


def test_a_draft_is_better_than_cutting_and_worse_than_pruning(dense, moments):
    error = {
        "draft": output_error(drafted(dense, PLAN.kept, moments)[0], dense),
        "cut": output_error(pruned_model(dense, compensate=False)[0], dense),
        "pruned": output_error(pruned_model(dense)[0], dense),
    }
    assert error["pruned"] < error["draft"] < error["cut"]


def test_a_draft_that_keeps_everything_is_the_model(dense, moments):
    draft, alive = drafted(dense, {"ffn.0": 48}, moments)
    assert_same_state(draft, state_of(dense))
    assert all(mask.all() for mask in alive.values()) and set(alive) == set(PLAN.kept)


@pytest.mark.parametrize(
    ("kept", "complaint"), [({"ffn.7": 8}, "names axis 'ffn.7'"), ({"ffn.0": 20}, "pruned in tiles of 8; 20 is no")]
)
def test_a_draft_of_a_plan_that_does_not_fit_is_refused(dense, moments, kept, complaint):
    with pytest.raises(TransformError, match=complaint):
        drafted(dense, kept, moments, TILES)
