"""Rounding of pages: errors within half a step, the same product as the floats that it stands for, honest bytes."""

import pytest
import torch
from tiny_caches import decode, paged_decoder, prompt, uneven

from icd_lib.models.cache import PagedCache
from icd_lib.models.cache.int8 import LARGEST, Int8Store, round_keys, round_values
from icd_lib.models.cache.store import FloatStore

B, G, PAGE, D = 2, 3, 4, 6


def states(tokens, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, G, tokens, D, generator=generator, dtype=torch.float64).to(dtype)


def filled(tokens, pieces=(), dead=None):
    store, floats = Int8Store(PAGE), FloatStore(PAGE)
    keys, values = states(tokens) * torch.tensor([1, 10, 0.1, 3, 1, 100.0], dtype=torch.float64), states(tokens, 1)
    for first, last in zip([0, *pieces], [*pieces, tokens], strict=True):
        for kept in (store, floats):
            kept.append(keys[:, :, first:last], values[:, :, first:last])
        if store.is_due:
            store.settle(dead)
    return store, floats


@pytest.mark.parametrize("round_states, dim", [(round_keys, -2), (round_values, -1)])
def test_error_is_within_half_a_step_of_its_scale(round_states, dim):
    pages = states(5 * PAGE).unflatten(2, (-1, PAGE)) * 7
    codes, scale = round_states(pages)
    assert codes.dtype == torch.int8 and scale.dtype == torch.float16 and scale.shape[dim] == 1
    error = (codes * scale.double() - pages).abs()
    # float16 scales may fall short of the largest number by a part in 2,048: it is then clamped.
    assert (error <= scale.double() * (0.5 + LARGEST / 2048)).all()
    assert codes.abs().max() == LARGEST


@pytest.mark.parametrize("pieces", [(), (3, 9, 10), tuple(range(1, 22))])
def test_products_are_those_of_the_floats_it_stands_for(pieces):
    store, floats = filled(22, pieces)
    assert store.pages == 5 and store.used == floats.used == 22 and store.capacity <= 2 * PAGE + 22
    keys, values = store.read()
    query, weights = states(2, 5), torch.rand(B, G, 2, 22, dtype=torch.float64)
    assert torch.allclose(store.scores(query), query @ keys.transpose(-1, -2), rtol=1e-12, atol=1e-12)
    assert torch.allclose(store.mix(weights), weights @ values, rtol=1e-12, atol=1e-12)
    true_keys, true_values = floats.read()
    assert 0 < (keys - true_keys).norm() / true_keys.norm() < 0.01
    assert 0 < (values - true_values).norm() / true_values.norm() < 0.01
    assert torch.equal(keys[:, :, 20:], true_keys[:, :, 20:])  # the newest tokens are not rounded


def test_keys_are_rounded_by_channel():
    """A channel a hundred times smaller keeps its relative error: one scale a token would lose it."""
    store, floats = filled(20)
    (keys, _), (true, _) = store.read(), floats.read()
    relative = (keys - true).flatten(0, 2).norm(dim=0) / true.flatten(0, 2).norm(dim=0)
    assert (relative < 0.01).all()


def test_dead_slots_widen_no_grid():
    dead = torch.zeros(B, G, 8, dtype=torch.bool)
    dead[:, :, 2] = True
    store = Int8Store(PAGE)
    keys, values = states(8), states(8, 1)
    keys[:, :, 2] = 1e4
    store.append(keys, values)
    store.settle(dead)
    living = torch.tensor([0, 1, 3])
    assert (store.read()[0][:, :, living] - keys[:, :, living]).abs().max() < 0.05


def test_bytes_count_codes_scales_and_what_is_still_float():
    store, _ = filled(22)
    assert store.page_bytes(True) == 2 * PAGE * D + 2 * (D + PAGE)
    assert store.page_bytes(False) == 2 * PAGE * D * 8
    codes = B * G * 5 * store.page_bytes(True)
    assert store.allocated_bytes() == codes + 2 * store.keys.numel() * 8


def test_decoding_is_near_and_padding_changes_nothing():
    model = paged_decoder()
    ids = prompt(2, 60)
    full, rounded = PagedCache(model, page=4), PagedCache(model, page=4, store="int8")
    for cache in (full, rounded):
        model(input_ids=ids[:, :40], past_key_values=cache)
    expected, found = (model(input_ids=ids[:, 40:], past_key_values=cache).logits for cache in (full, rounded))
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 0.02
    inputs = uneven()
    together = decode(model, inputs, PagedCache(model, page=4, store="int8"))
    assert torch.equal(
        together[:1], decode(model, {"input_ids": inputs["input_ids"][:1]}, PagedCache(model, page=4, store="int8"))
    )
