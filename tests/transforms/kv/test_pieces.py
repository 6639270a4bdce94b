"""Scores, choices, layouts, budgets, records and graphs of the token axis, against brute force."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from tiny_caches import PAGE, POLICY, cache_of, prompt
from tiny_caches import paged_decoder as decoder

from icd_lib.errors import ConfigError, TransformError
from icd_lib.models.cache import PagedCache
from icd_lib.models.cache.layer import DEAD
from icd_lib.transforms.effects import TransformMeta
from icd_lib.transforms.kv import record_cache, scores
from icd_lib.transforms.kv.allocate import allocate_budgets, measure_mass
from icd_lib.transforms.kv.graph import token_graph
from icd_lib.transforms.kv.layout import count_pages, iterative_layout, linear_layout
from icd_lib.transforms.kv.record import living_tokens, token_meta
from icd_lib.transforms.kv.scores import attention_scores
from icd_lib.transforms.kv.select import keep_pages, keep_tokens, protected_slots


@pytest.mark.parametrize("most", [1, 1 << 24])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_scores_are_the_mean_weights_of_the_last_queries(monkeypatch, most, padded):
    monkeypatch.setattr(scores, "LARGEST", most)
    model, ids = decoder(), prompt()
    mask = torch.ones_like(ids)
    if padded:
        mask[1, :57] = 0  # four tokens: fewer than are observed
    cache = PagedCache(model, observed=6)
    model(input_ids=ids, attention_mask=mask, past_key_values=cache)
    model.set_attn_implementation("eager")
    for row, first in ((0, 0), (1, 57 if padded else 0)):
        weights = model(input_ids=ids[row : row + 1, first:], output_attentions=True).attentions
        for layer, of_layer in zip(cache.layers, weights, strict=True):
            found = attention_scores(layer, layer.store.read()[0], 6)[row]
            expected = of_layer[0, :, -6:].unflatten(0, (3, 2)).mean((1, 2))
            # The stock softmax is float32, and padding moves all positions.
            assert torch.allclose(found[:, first:], expected, rtol=1e-5, atol=1e-6)
            assert not found[:, :first].any()


def test_choices_against_brute_force():
    drawn = torch.rand(2, 2, 11, generator=torch.Generator().manual_seed(1))
    columns = torch.arange(11).expand(2, 2, 11).clone()
    columns[0, 1, :3] = DEAD
    protected = protected_slots(columns, torch.tensor([3, 0]), 11, sinks=1, window=2)
    kept = keep_tokens(drawn, columns, protected, 6)
    for row, group in itertools.product(range(2), range(2)):
        living = [slot for slot in range(11) if columns[row, group, slot] != DEAD]
        first = 3 if row == 0 else 0
        # A row that starts at column 3 has no sink before it; whatever lies there is padding.
        must = {slot for slot in living if slot <= first or slot >= 9}
        rest = sorted(set(living) - must, key=lambda slot: -drawn[row, group, slot])
        assert set(kept[row, group].nonzero().ravel().tolist()) == must | set(rest[: 6 - len(must)])


def test_pages_are_chosen_by_their_sum():
    worth = torch.tensor([[[0.1, 0.1, 0.9, 0.0, 0.3, 0.3, 0.2, 0.2, 0.0]]])
    columns = torch.arange(9).expand(1, 1, 9)
    protected = protected_slots(columns, None, 9, sinks=0, window=1)
    kept = keep_pages(worth, columns, protected, budget=5, page=2)  # the last page, and the best other one
    assert kept[0, 0].nonzero().ravel().tolist() == [2, 3, 8]
    kept = keep_pages(worth - 1, columns, protected, budget=6, page=2)  # below zero nothing changes
    assert kept[0, 0].nonzero().ravel().tolist() == [2, 3, 4, 5, 8]


def test_layouts_hold_exactly_what_is_kept():
    generator = torch.Generator().manual_seed(2)
    for count in (8, 11, 13):
        keep = torch.rand(2, 3, count, generator=generator) < 0.3
        keep[..., -1] = True
        for slots, alive in (linear_layout(keep, PAGE), iterative_layout(keep)):
            assert (slots[..., -1] == count - 1).all() and alive[..., -1].all()
            for row, group in itertools.product(range(2), range(3)):
                held = slots[row, group][alive[row, group]].tolist()
                assert held == keep[row, group].nonzero().ravel().tolist()
        pages = [{slot // PAGE for slot in row.nonzero().ravel().tolist()} for row in keep.flatten(0, 1)]
        slots, alive = linear_layout(keep, PAGE)
        assert count_pages(alive, PAGE).flatten().tolist() == [len(found) for found in pages]
        assert slots.shape[2] == max(map(len, pages)) * PAGE - (-count % PAGE)
        slots, alive = iterative_layout(keep)
        assert slots.shape[2] == keep.sum(-1).max()


def test_linear_pages_keep_their_places():
    """A page's tokens stay in one page, at the same offsets: no layout is sneaked in."""
    keep = torch.zeros(1, 1, 16, dtype=torch.bool)
    keep[0, 0, [1, 6, 7, 15]] = True
    slots, alive = linear_layout(keep, PAGE)
    assert slots[0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15]
    assert alive[0, 0].nonzero().ravel().tolist() == [1, 6, 7, 11]


def test_budgets_keep_the_most_mass():
    generator = np.random.default_rng(0)
    mass = -np.sort(-generator.random((3, 6)), axis=1)
    found = allocate_budgets(mass, 3, least=1, page=1, floor=0.0)
    assert sum(found) == 9 and min(found) >= 1
    deals = [deal for deal in itertools.product(range(1, 7), repeat=3) if sum(deal) == 9]
    kept = {deal: sum(mass[row, :count].sum() for row, count in enumerate(deal)) for deal in deals}
    assert kept[found] == max(kept.values())
    with pytest.raises(ConfigError, match="below the 4 that every layer keeps"):
        allocate_budgets(mass, 3, least=4, page=1)
    even = allocate_budgets(mass, 4, least=1, page=2, floor=1.0)
    assert even == (4, 4, 4)


def test_mass_falls_and_sums_to_one():
    mass = measure_mass(decoder(), [prompt(seed=seed) for seed in range(2)], observe=6)
    assert mass.shape == (2, 61) and (np.diff(mass, axis=1) <= 0).all()
    assert np.allclose(mass.sum(1), 1)
    with pytest.raises(ConfigError, match="at least one prompt"):
        measure_mass(decoder(), [])


def compressed(layout, unit="token", store="float"):
    model, ids = decoder(), prompt()
    cache = cache_of(model, dataclasses.replace(POLICY, layout=layout, unit=unit), store=store)
    model(input_ids=ids, past_key_values=cache)
    return cache


def test_record_counts_pages_and_bytes():
    linear, iterative = (record_cache(compressed(layout), POLICY) for layout in ("linear", "iterative"))
    readers = 2 * 2 * 3  # layers, rows, groups
    page_bytes = 2 * PAGE * 6 * 8
    for record in (linear, iterative):
        assert record.total("pages_before") == readers * 16  # 61 tokens
        assert record.total("bytes_full") == readers * 16 * page_bytes
        assert all(layer.living == (24.0, 24.0, 24.0) and layer.seen == 61 for layer in record.layers)
    assert iterative.total("pages") == iterative.total("pages_read") == readers * 6
    assert iterative.total("bytes_read") == readers * 6 * page_bytes
    assert readers * 6 < linear.total("pages") <= linear.total("pages_read")
    hole_bytes = PAGE * 8
    assert linear.total("bytes_read") == linear.total("pages_read") * (page_bytes + hole_bytes)
    stored = linear.to_json()
    assert stored["totals"]["pages"] == linear.total("pages") and stored["policy"]["budget"] == 24


def test_pages_are_those_that_hold_a_living_token():
    cache = compressed("linear")
    for layer, entry in zip(cache.layers, record_cache(cache).layers, strict=True):
        living = living_tokens(layer)
        pages = sum(len({column // PAGE for column in np.flatnonzero(row)}) for row in living.reshape(-1, 61))
        assert entry.pages == pages


def test_record_of_int8_counts_codes_scales_and_the_float_tail():
    record = record_cache(compressed("iterative", store="int8"))
    coded = 2 * PAGE * 6 + 2 * (6 + PAGE)
    assert record.total("bytes_read") == 12 * 6 * coded  # 24 tokens fill six pages: nothing is left in float
    assert record.total("bytes_full") == 12 * 16 * 2 * PAGE * 6 * 8


def test_page_wise_eviction_leaves_no_holes():
    cache = compressed("linear", unit="page")
    record = record_cache(cache)
    assert all(layer.bias is None for layer in cache.layers)
    assert record.total("pages") == record.total("pages_read") == 12 * 6


def test_meta_of_the_token_axes():
    cache = compressed("iterative")
    meta = token_meta(cache, row=1)
    assert set(meta.axes) == {f"tokens.{layer}.{group}" for layer in range(2) for group in range(3)}
    assert meta.delta_layout and meta.axes["tokens.1.2"].kept == 24
    again = TransformMeta.from_json(meta.to_json())
    assert np.array_equal(again.axes["tokens.0.1"].alive, living_tokens(cache.layers[0])[1, 1])


def test_graph_counts_what_is_read_together():
    alive = np.random.default_rng(3).random((5, 9)) < 0.5
    W = token_graph(alive, 8.0).toarray()
    expected = 8.0 * alive.T.astype(float) @ alive
    np.fill_diagonal(expected, 0)
    assert np.allclose(W, expected)
    with pytest.raises(TransformError, match="bool of shape"):
        token_graph(alive[0], 8.0)


def test_the_solver_finds_whole_pages():
    """Two kinds of readers with tokens of their own: an order from W fills pages that the stored order scatters."""
    import icd_lib as icd

    alive = np.zeros((2, 32), bool)
    alive[0, ::2], alive[1, 1::2] = True, True
    order, _ = icd.fit_permutation(token_graph(alive, 8.0), cost=icd.CostConfig(g=PAGE), time_budget_s=5, seed=0)
    pages = [int(count_pages(torch.from_numpy(tokens)[:, None], PAGE).sum()) for tokens in (alive, alive[:, order])]
    assert pages == [16, 8]
