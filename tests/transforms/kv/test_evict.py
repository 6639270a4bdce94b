"""Evictions: what is kept, that layouts compute the same, that positions go on, and what is refused."""

import dataclasses

import pytest
import torch
from tiny_caches import PAGE, POLICY, cache_of, prompt
from tiny_caches import paged_decoder as decoder

from icd_lib.errors import ConfigError
from icd_lib.models.cache import PagedCache
from icd_lib.models.cache.layer import DEAD
from icd_lib.transforms.kv import KvEvictor
from icd_lib.transforms.kv.scores import SCORES


def run(model, cache, ids, steps, mask=None):
    """Logits of the prompt's last token and of each following one, given token by token."""
    ends = [ids.shape[1] - steps + step for step in range(steps + 1)]
    outs = []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        given = None if mask is None else mask[:, :last]
        outs.append(model(input_ids=ids[:, first:last], attention_mask=given, past_key_values=cache).logits[:, -1])
    return torch.stack(outs, 1)


@pytest.mark.parametrize("score", sorted(SCORES))
@pytest.mark.parametrize("padded", [False, True])
def test_linear_and_iterative_compute_the_same(score, padded):
    """Evictions after the prompt and while decoding, holes or none: the layouts differ, the function does not."""
    model, ids, mask = decoder(), prompt(), None
    if padded:
        mask = torch.ones_like(ids)
        mask[1, :30] = 0
    outs = {}
    for layout in ("linear", "iterative"):
        policy = dataclasses.replace(POLICY, score=score, layout=layout)
        cache = cache_of(model, policy)
        outs[layout] = run(model, cache, ids, 20, mask)
        columns = [layer.columns.sort(dim=-1).values for layer in cache.layers]
        outs[layout, "kept"] = [[row[row != DEAD].tolist() for row in layer.flatten(0, 1)] for layer in columns]
    assert outs["linear", "kept"] == outs["iterative", "kept"]
    error = (outs["linear"] - outs["iterative"]).abs().max() / outs["linear"].abs().max()
    assert error <= 1e-12
    full = run(model, PagedCache(model), ids, 20, mask)
    assert (outs["linear"] - full).abs().max() / full.abs().max() > 1e-4  # something was evicted that mattered


def test_any_order_of_the_living_computes_the_same():
    """A 3-cycle and a shuffle of the slots, the newest in its place."""
    model, ids = decoder(), prompt()
    expected = None
    for order in ("kept", "cycle", "shuffled"):
        cache = cache_of(model, POLICY)
        model(input_ids=ids[:, :40], past_key_values=cache)
        for layer in cache.layers:
            slots = torch.arange(layer.used).expand(2, 3, -1).clone()
            if order == "cycle":
                slots[..., :3] = torch.tensor([1, 2, 0])
            if order == "shuffled":
                slots[..., :-1] = torch.randperm(layer.used - 1, generator=torch.Generator().manual_seed(3))
            layer.keep_slots(slots, torch.ones_like(slots, dtype=torch.bool))
        found = model(input_ids=ids[:, 40:], past_key_values=cache).logits
        expected = found if expected is None else expected
        assert (found - expected).abs().max() / expected.abs().max() <= 1e-12


def test_a_budget_that_holds_all_changes_nothing():
    model, ids = decoder(), prompt()
    expected = run(model, PagedCache(model), ids, 10)
    assert torch.equal(run(model, cache_of(model, dataclasses.replace(POLICY, budget=61)), ids, 10), expected)


def test_evicted_tokens_are_as_if_masked():
    """What is left attends like the full cache with the evicted tokens' products at minus infinity."""
    model, ids = decoder(num_hidden_layers=1), prompt(1)
    cache = cache_of(model, POLICY)
    model(input_ids=ids[:, :60], past_key_values=cache)
    kept = [set(row.tolist()) for row in cache.layers[0].columns[0]]
    found = model(input_ids=ids[:, 60:], past_key_values=cache).logits
    full = PagedCache(model, page=PAGE)
    model(input_ids=ids[:, :60], past_key_values=full)
    layer = full.layers[0]
    columns = layer.all_columns().clone()
    for group, living in enumerate(kept):
        for column in range(60):
            if column not in living:
                columns[0, group, column] = DEAD
    layer._set_columns(columns, torch.float64)
    expected = model(input_ids=ids[:, 60:], past_key_values=full).logits
    assert (found - expected).abs().max() / expected.abs().max() <= 1e-12
    assert len({frozenset(living) for living in kept}) > 1  # groups keep different tokens


def test_groups_keep_equally_many_and_sinks_and_window_stay():
    model, ids = decoder(), prompt()
    for unit in ("token", "page"):
        cache = cache_of(model, dataclasses.replace(POLICY, unit=unit))
        model(input_ids=ids, past_key_values=cache)
        for layer in cache.layers:
            living = layer.all_columns() != DEAD
            counts = living.sum(2)
            assert (counts == 24).all() if unit == "token" else ((20 < counts) & (counts <= 24)).all()
            for row in layer.all_columns().flatten(0, 1).tolist():
                assert {0, 1, 56, 57, 58, 59, 60} <= set(row)


def test_the_cache_stays_within_its_budget_while_decoding():
    model, ids = decoder(), prompt(2, 120)
    cache = cache_of(model, POLICY)
    model(input_ids=ids[:, :50], past_key_values=cache)
    lengths = []
    for step in range(50, 120):
        model(input_ids=ids[:, step : step + 1], past_key_values=cache)
        lengths.append([layer.living for layer in cache.layers])
    lengths = torch.tensor(lengths)
    assert lengths.max() == 24 + 7 and lengths.min() == 24
    assert (lengths == 24).sum() == 2 * (70 // 8)  # an eviction is due with the eighth token over the budget
    assert cache.get_seq_length() == 120
    newest = [layer.columns[:, :, -1] for layer in cache.layers]
    assert all((columns == 119).all() for columns in newest)


def test_positions_go_on_from_what_was_seen():
    """With the recent tokens alone, a model is fed as if its prompt had been cut, but at its true positions."""
    model, ids = decoder(num_hidden_layers=1), prompt(1, 40)
    policy = dataclasses.replace(POLICY, budget=8, sinks=0, window=8, score="recent")
    cache = cache_of(model, policy)
    model(input_ids=ids[:, :39], past_key_values=cache)
    found = model(input_ids=ids[:, 39:], past_key_values=cache).logits
    expected = model(input_ids=ids[:, 31:], position_ids=torch.arange(31, 40)[None]).logits[:, -1:]
    assert (found - expected).abs().max() / expected.abs().max() <= 1e-10
    cut = model(input_ids=ids[:, 31:]).logits[:, -1:]  # rotary positions are relative
    assert torch.allclose(cut, expected, rtol=1e-4, atol=1e-5)  # Transformers' angles are float32
    assert cache.get_seq_length() == 40


def test_generate_evicts_and_goes_on():
    model = decoder()
    mask = torch.ones(2, 61, dtype=torch.long)
    mask[1, :50] = 0
    outs = []
    for layout in ("linear", "iterative"):
        cache = cache_of(model, dataclasses.replace(POLICY, layout=layout))
        options = {"max_new_tokens": 40, "do_sample": False, "pad_token_id": 0, "attention_mask": mask}
        outs.append(model.generate(prompt(), past_key_values=cache, **options))
        assert cache.layers[0].living <= 31 and cache.get_seq_length() == 100
    assert torch.equal(*outs) and outs[0].shape == (2, 101)


def test_rows_shorter_than_the_budget_keep_all():
    model, ids = decoder(), prompt()
    mask = torch.ones_like(ids)
    mask[1, :51] = 0  # ten tokens
    cache = cache_of(model, POLICY)
    model(input_ids=ids, attention_mask=mask, past_key_values=cache)
    for layer in cache.layers:
        rows = layer.columns.tolist()
        assert all(sorted(group)[-10:] == list(range(51, 61)) and group.count(DEAD) == 14 for group in rows[1])
        assert layer.bias is not None


def test_budgets_may_differ_by_layer():
    model, ids = decoder(), prompt()
    cache = cache_of(model, dataclasses.replace(POLICY, budget=(12, 36)))
    model(input_ids=ids, past_key_values=cache)
    assert [layer.used for layer in cache.layers] == [12, 36]
    short = cache_of(decoder(num_hidden_layers=3), dataclasses.replace(POLICY, budget=(12, 36)))
    with pytest.raises(ConfigError, match="kv.budget has 2 entries and the model more layers"):
        decoder(num_hidden_layers=3)(input_ids=ids, past_key_values=short)


@pytest.mark.parametrize("store", ["float", "int8"])
def test_a_compressed_copy_is_what_compressing_from_the_start_gives(store):
    model, ids = decoder(), prompt()
    full = PagedCache(model, page=PAGE, observed=POLICY.observe)
    model(input_ids=ids[:, :50], past_key_values=full)
    copied = full.compressed(store=store, evictor=KvEvictor(POLICY))
    direct = cache_of(model, POLICY, store=store)
    model(input_ids=ids[:, :50], past_key_values=direct)
    expected, found = (model(input_ids=ids[:, 50:], past_key_values=cache).logits for cache in (direct, copied))
    assert torch.equal(found, expected)
    assert full.layers[0].used == 50  # the original is untouched
    assert torch.isfinite(model(input_ids=ids[:, 50:], past_key_values=full).logits).all()


def test_int8_and_eviction_together_stay_near():
    model, ids = decoder(), prompt()
    floats, codes = (run(model, cache_of(model, POLICY, store=store), ids, 20) for store in ("float", "int8"))
    error = (codes - floats).norm() / floats.norm()
    assert 0 < error < 0.05


def test_refusals():
    model, ids = decoder(), prompt()
    with pytest.raises(ConfigError, match=r"kv.budget of 6 tokens \(layer 0\) is below the 7 that are always kept"):
        dataclasses.replace(POLICY, budget=6)
    with pytest.raises(ConfigError, match="below the 12 that are always kept"):
        dataclasses.replace(POLICY, budget=11, unit="page")
    for change, words in (
        ({"score": "best"}, "kv.score 'best' is unknown"),
        ({"unit": "word"}, "kv.unit 'word'"),
        ({"layout": "random"}, "kv.layout 'random'"),
        ({"window": 0}, "kv.window is an integer >= 1, got 0"),
        ({"pool": 4}, "kv.pool is odd"),
    ):
        with pytest.raises(ConfigError, match=words):
            dataclasses.replace(POLICY, **change)
    full = PagedCache(model, observed=2)
    model(input_ids=ids, past_key_values=full)
    with pytest.raises(ConfigError, match="looks at 6 queries and the cache kept 2; make it with observed=6"):
        full.compressed(evictor=KvEvictor(POLICY))
    with pytest.raises(ConfigError, match="only a cache that has lost nothing"):
        cache_of(model, POLICY).compressed()
