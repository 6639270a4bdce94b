import copy

import numpy as np
import pytest
import torch

from icd_lib.axes.kinds import KINDS
from icd_lib.axes.permute import permute
from icd_lib.models.families import find_adapter
from icd_lib.transforms.sparsity.obs import affine, restrict
from icd_lib.transforms.sparsity.prune import consumer_moments, zero_elements
from icd_lib.transforms.sparsity.sensitivity import eliminations, loss_curves, measure_sensitivity
from tests.tiny_problems import assert_same_state, encode, small_batches, small_model, state_of

RIDGE = 0.01
SINGLE = {"ffn": 1, "heads": 1}
TILES = {"ffn": 8, "heads": 1}


@pytest.fixture(scope="module")
def studied():
    model, batches = small_model(dtype=torch.float32), small_batches()
    state, adapter = state_of(model), find_adapter(model)
    moments = consumer_moments(adapter, batches)
    paths = eliminations(adapter, moments, SINGLE, RIDGE, {})
    found = measure_sensitivity(adapter, moments, paths, RIDGE, batches)
    assert_same_state(model, state)
    return model, batches, moments, paths, found


def test_every_block_has_a_positive_rate(studied):
    *_, found = studied
    assert [s.axis for s in found] == ["heads.0", "ffn.0", "heads.1", "ffn.1"]
    assert [s.probe_kept for s in found] == [3, 24, 3, 24]
    assert all(s.output_error > 0 and s.block_loss > 0 and s.rate == s.output_error / s.block_loss for s in found)


@pytest.mark.parametrize("name", ["heads.0", "ffn.0", "ffn.1"])
def test_the_probe_is_the_model_with_that_block_pruned(studied, name):
    model, batches, moments, paths, found = studied
    probed = copy.deepcopy(model)
    block = next(b for b in find_adapter(probed).blocks() if b.axis == name)
    kept = round(block.elements * KINDS[block.kind].probe_keep)
    alive = paths[name].alive(block.elements, kept)
    columns = alive.repeat_interleave(block.unit).nonzero()[:, 0]
    weights = restrict(moments[name].damped(RIDGE), affine(block.consumer), columns).float()
    zero_elements(probed, find_adapter(probed).axis(name), ~alive)
    with torch.no_grad():
        block.consumer.weight[:, columns] = weights[:, :-1]
        block.consumer.bias.copy_(weights[:, -1])
    wanted = torch.cat([encode(model, b) for b in batches])
    got = torch.cat([encode(probed, b) for b in batches])
    error = float((got - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())
    assert next(s for s in found if s.axis == name).output_error == pytest.approx(error, rel=1e-3)


def test_moments_are_those_of_what_the_consumers_read(studied):
    model, batches, moments, _, _ = studied
    for block in find_adapter(model).blocks():
        read = []
        handle = block.consumer.register_forward_pre_hook(lambda _module, args, read=read: read.append(args[0]))
        for batch in batches:
            encode(model, batch)
        handle.remove()
        X = torch.cat([x[b["attention_mask"].bool()] for x, b in zip(read, batches, strict=True)]).double()
        design = torch.cat([X, torch.ones(len(X), 1, dtype=torch.float64)], 1)
        assert torch.allclose(moments[block.axis].gram, design.T @ design, rtol=1e-4, atol=1e-4)
        target = X @ affine(block.consumer)[:, :-1].T + affine(block.consumer)[:, -1]
        assert torch.allclose(moments[block.axis].cross, target.T @ design, rtol=1e-3, atol=1e-2)


def test_curves_fall_to_zero_and_scale_with_the_rate(studied):
    model, _, moments, paths, found = studied
    rates = {s.axis: s.rate for s in found}
    adapter = find_adapter(model)
    curves = loss_curves(adapter, paths, moments, rates, SINGLE, TILES)
    twice = loss_curves(adapter, paths, moments, {a: 2 * r for a, r in rates.items()}, SINGLE, TILES)
    for curve, double, probe in zip(curves, twice, found, strict=True):
        assert curve.kept.tolist() == (list(range(8, 49, 8)) if curve.kind == "ffn" else [1, 2, 3, 4])
        assert curve.loss[-1] == 0.0
        assert (np.diff(curve.loss) < 0).all()
        assert np.allclose(double.loss, 2 * curve.loss)
        # The exchange rate makes curve and measured output error meet at the probe.
        assert curve.at(probe.probe_kept) == pytest.approx(probe.output_error, rel=1e-9)


def test_whole_tiles_cost_at_least_as_much_as_single_elements(studied):
    model, _, moments, paths, _ = studied
    adapter, rates = find_adapter(model), dict.fromkeys(moments, 1.0)
    tiles = eliminations(adapter, moments, TILES, RIDGE, {})
    coarse = loss_curves(adapter, tiles, moments, rates, TILES, TILES)
    fine = loss_curves(adapter, paths, moments, rates, SINGLE, TILES)
    for tile, single in zip(coarse, fine, strict=True):
        assert np.array_equal(tile.kept, single.kept)
        assert (tile.loss >= single.loss - 1e-12).all()
    assert coarse[1].loss[0] > 1.05 * fine[1].loss[0]


def test_a_size_that_is_no_multiple_of_the_step_still_ends_with_all():
    model, batches = small_model(dtype=torch.float32, intermediate_size=50), small_batches(1)
    adapter = find_adapter(model)
    moments = consumer_moments(adapter, batches)
    paths = eliminations(adapter, moments, SINGLE, RIDGE, {})
    curve = loss_curves(adapter, paths, moments, dict.fromkeys(moments, 1.0), SINGLE, {"ffn": 16, "heads": 1})[1]
    assert curve.kept.tolist() == [16, 32, 48, 50]
    assert curve.loss[-1] == 0.0


def test_a_double_precision_model_can_be_probed(studied):
    *_, found = studied
    model, batches = small_model(dtype=torch.float64), small_batches()
    adapter = find_adapter(model)
    moments = consumer_moments(adapter, batches)
    paths = eliminations(adapter, moments, SINGLE, RIDGE, {})
    for double, single in zip(measure_sensitivity(adapter, moments, paths, RIDGE, batches), found, strict=True):
        assert double.output_error == pytest.approx(single.output_error, rel=1e-2)


def test_tiles_of_a_layout_are_the_tiles_of_the_permuted_model(studied):
    model, batches, moments, _, _ = studied
    rng, permuted, orders = np.random.default_rng(5), copy.deepcopy(model), {}
    for axis in find_adapter(permuted).axes():
        if axis.kind in TILES:
            orders[axis.name] = rng.permutation(axis.size)
            permute(permuted, axis, orders[axis.name])
    there = find_adapter(permuted)
    wanted = eliminations(there, consumer_moments(there, batches), TILES, RIDGE, {})
    got = eliminations(find_adapter(model), moments, TILES, RIDGE, orders)
    for axis in orders:
        assert got[axis].order == wanted[axis].order
        assert got[axis].loss == pytest.approx(wanted[axis].loss, rel=1e-3)
