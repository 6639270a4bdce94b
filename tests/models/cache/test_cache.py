"""A cache in pages gives what the stock cache gives, token for token, and refuses by name what it cannot serve."""

import copy

import numpy as np
import pytest
import torch
from tiny_caches import decode, prompt, uneven
from tiny_caches import stock_decoder as decoder
from tiny_decoders import SIZE, tiny_decoder
from transformers import DynamicCache

from icd_lib.axes.compact import compact
from icd_lib.errors import ConfigError
from icd_lib.models.cache import PAGED, PagedCache, use_paged_attention
from icd_lib.models.families import find_adapter
from icd_lib.transforms.kv import KvEvictor, KvPolicy

KINDS = ("llama", "mistral", "qwen2", "qwen3", "gemma")


def stock_and_paged(model):
    return copy.deepcopy(model), use_paged_attention(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_greedy_decoding_equals_the_stock_cache(kind, padded):
    stock, paged = stock_and_paged(decoder(kind))
    inputs = uneven() if padded else {"input_ids": prompt(2, 37)}
    expected = decode(stock, inputs, DynamicCache(config=stock.config))
    assert torch.equal(decode(paged, inputs, PagedCache(paged, page=4)), expected)
    assert expected.shape[1] == 77


@pytest.mark.parametrize("dtype, least", [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_logits_equal_the_stock_cache_in_one_pass_and_in_pieces(dtype, least):
    stock, paged = stock_and_paged(decoder(dtype=dtype))
    ids, theirs, ours = prompt(2, 50), DynamicCache(config=stock.config), PagedCache(paged, page=4)
    for first, last in ((0, 23), (23, 24), (24, 40), (40, 41), (41, 50)):
        expected = stock(input_ids=ids[:, first:last], past_key_values=theirs).logits
        found = paged(input_ids=ids[:, first:last], past_key_values=ours).logits
        assert (found - expected).abs().max() <= least * expected.abs().max()
    assert ours.get_seq_length() == theirs.get_seq_length() == 50


def test_stock_attention_reads_a_cache_that_has_lost_nothing():
    model = decoder()
    inputs = uneven()
    expected = decode(model, inputs, DynamicCache(config=model.config))
    assert torch.equal(decode(model, inputs, PagedCache(model)), expected)


def test_paged_attention_serves_stock_caches_and_no_cache():
    stock, paged = stock_and_paged(decoder())
    inputs = uneven()
    expected = decode(stock, inputs, DynamicCache(config=stock.config))
    assert torch.equal(decode(paged, inputs, DynamicCache(config=paged.config)), expected)
    real = inputs["attention_mask"].bool()
    theirs, ours = (model(**inputs, use_cache=False).logits for model in (stock, paged))
    assert torch.allclose(ours[real], theirs[real], rtol=1e-10, atol=1e-12)


def test_padding_changes_nothing_for_a_row():
    model = use_paged_attention(decoder())
    inputs = uneven()
    together = decode(model, inputs, PagedCache(model))
    for row, length in ((1, 20), (2, 5)):
        alone = {"input_ids": inputs["input_ids"][row : row + 1, 37 - length :]}
        assert torch.equal(decode(model, alone, PagedCache(model))[0, length:], together[row, 37:])


def test_layers_may_have_different_numbers_of_kv_groups():
    stock = decoder()
    drop_group(stock, 1)
    stock, paged = stock_and_paged(stock)
    ids = {"input_ids": prompt(2, 37)}
    expected = decode(stock, ids, DynamicCache(config=stock.config))
    cache = PagedCache(paged)
    assert torch.equal(decode(paged, ids, cache), expected)
    assert [layer.store.keys.shape[1] for layer in cache.layers] == [3, 2]


def drop_group(model, layer):
    """Remove the last KV group of a layer, physically."""
    axis = next(axis for axis in find_adapter(model).axes() if axis.name == f"kv_groups.{layer}")
    compact(model, axis, np.array([True, True, False]))


def test_the_past_is_written_in_place_and_buffers_double_in_pages():
    model = use_paged_attention(decoder())
    cache, store = PagedCache(model, page=4), None
    model(input_ids=prompt(1, 9), past_key_values=cache)
    capacities, addresses = [], []
    for token in range(30):
        model(input_ids=prompt(1, 1, token), past_key_values=cache)
        store = cache.layers[1].store
        capacities.append(store.capacity)
        addresses.append(store.keys.data_ptr())
    assert sorted(set(capacities)) == [12, 24, 48]
    moves = sum(a != b for a, b in zip(addresses, addresses[1:], strict=False))
    grows = sum(a != b for a, b in zip(capacities, capacities[1:], strict=False))
    assert moves == grows == 2
    assert store.keys.shape == (1, 3, 48, SIZE)


def test_room_spares_the_growth():
    model = use_paged_attention(decoder())
    cache = PagedCache(model, page=4, room=50)
    model(input_ids=prompt(1, 9), past_key_values=cache)
    first = cache.layers[0].store.keys.data_ptr()
    for token in range(30):
        model(input_ids=prompt(1, 1, token), past_key_values=cache)
    assert cache.layers[0].store.keys.data_ptr() == first and cache.layers[0].store.capacity == 52


def test_beam_search_and_assisted_decoding_equal_the_stock_cache():
    stock, paged = stock_and_paged(decoder())
    ids = prompt(1, 20)
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    expected = stock.generate(ids, num_beams=3, **options)
    assert torch.equal(paged.generate(ids, num_beams=3, past_key_values=PagedCache(paged), **options), expected)
    expected = stock.generate(ids, prompt_lookup_num_tokens=3, **options)
    found = paged.generate(ids, prompt_lookup_num_tokens=3, past_key_values=PagedCache(paged), **options)
    assert torch.equal(found, expected)


def test_reset_and_reuse():
    model = use_paged_attention(decoder())
    cache = PagedCache(model)
    first = decode(model, {"input_ids": prompt(1, 37)}, cache)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert torch.equal(decode(model, {"input_ids": prompt(1, 37)}, cache), first)


# Refusals.


def refused(words, model, cache, **inputs):
    with pytest.raises(ConfigError, match=words):
        model(past_key_values=cache, **inputs)


def test_refuses_an_empty_prompt():
    model = use_paged_attention(decoder())
    refused("prompt is empty", model, PagedCache(model), input_ids=prompt(1, 0))


def test_refuses_more_tokens_than_positions():
    model = use_paged_attention(decoder(max_position_embeddings=32))
    refused("40 tokens are more than the model's 32 positions", model, PagedCache(model), input_ids=prompt(1, 40))
    cache = PagedCache(model)
    model(input_ids=prompt(1, 32), past_key_values=cache)
    refused("33 tokens are more", model, cache, input_ids=prompt(1, 1))


def test_refuses_padding_on_the_right_and_a_row_without_tokens():
    model = use_paged_attention(decoder())
    inputs = uneven()
    inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    refused("row 1 of the batch ends in padding", model, PagedCache(model), **inputs)
    inputs["attention_mask"] = torch.ones(3, 37, dtype=torch.long)
    inputs["attention_mask"][2] = 0
    refused("row 2 of the batch ends in padding, or is nothing else", model, PagedCache(model), **inputs)


def test_refuses_masks_that_do_not_cover_what_was_seen():
    model = use_paged_attention(decoder())
    cache, inputs = PagedCache(model), uneven()
    model(**inputs, past_key_values=cache)
    late = torch.tensor([[1], [0], [1]])
    refused("covers 1 tokens and the model has seen 38", model, cache, input_ids=prompt(3, 1), attention_mask=late)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_hidden_layers": 3}, "cache of 2 layers: it is another model's"),
        ({"num_key_value_heads": 2}, "2 KV heads x 6 dims into a cache of 3 x 6"),
        ({"head_dim": 8}, "3 KV heads x 8 dims into a cache of 3 x 6"),
    ],
)
def test_refuses_another_models_cache(changes, words):
    cache, other = PagedCache(decoder()), use_paged_attention(decoder(**changes))
    refused(words, other, cache, input_ids=prompt(1, 37))


def test_refuses_a_cache_of_more_layers_and_of_another_dtype():
    other = use_paged_attention(decoder())
    cache = PagedCache(decoder(num_hidden_layers=3))
    other(input_ids=prompt(1, 37), past_key_values=cache)
    refused("layer 2 of the cache has not been written", other, cache, input_ids=prompt(1, 1))
    cache = PagedCache(other)
    other(input_ids=prompt(1, 37), past_key_values=cache)
    half = use_paged_attention(decoder(dtype=torch.float32))
    refused("layer 0 writes torch.float32 into a cache of torch.float64", half, cache, input_ids=prompt(1, 1))


def test_refuses_gradients():
    model = use_paged_attention(decoder()).requires_grad_(True)
    refused("keys with a gradient", model, PagedCache(model), input_ids=prompt(1, 9))


def test_refuses_another_batch():
    model = use_paged_attention(decoder())
    cache = PagedCache(model)
    model(input_ids=prompt(2, 37), past_key_values=cache)
    refused("batch of 3 goes on in a cache of 2 rows", model, cache, input_ids=prompt(3, 1))


def test_refuses_sliding_windows_other_families_and_bad_options():
    with pytest.raises(ConfigError, match="layer 0 of MistralForCausalLM attends to a sliding window of 16"):
        PagedCache(tiny_decoder("mistral", sliding_window=16))
    with pytest.raises(ConfigError, match="Linear is no decoder of the Llama family"):
        PagedCache(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="store 'int4' is unknown"):
        PagedCache(decoder(), store="int4")
    with pytest.raises(ConfigError, match="page is at least 1"):
        PagedCache(decoder(), page=0)


def evicting(model):
    return PagedCache(model, evictor=KvEvictor(KvPolicy(budget=16, sinks=2, window=4, page=4)), page=4)


@pytest.mark.parametrize("make", [evicting, lambda model: PagedCache(model, store="int8")])
def test_stock_attention_is_refused_where_it_would_read_wrongly(make):
    model = decoder()
    refused("attention 'sdpa' would read evicted or rounded tokens wrongly", model, make(model), input_ids=prompt())


def test_beam_search_is_refused_where_rows_have_lost_tokens():
    model = use_paged_attention(decoder())
    with pytest.raises(ConfigError, match="beam search moves rows"):
        model.generate(prompt(1, 37), past_key_values=evicting(model), num_beams=2, max_new_tokens=4, pad_token_id=0)


@pytest.mark.parametrize("make", [evicting, lambda model: PagedCache(model, store="int8")])
def test_assisted_decoding_is_refused_where_tokens_cannot_come_back(make):
    model = use_paged_attention(decoder())
    with pytest.raises(ConfigError, match="assisted decoding takes tokens back"):
        options = {"prompt_lookup_num_tokens": 2, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
        model.generate(prompt(1, 37), past_key_values=make(model), **options)


def test_the_config_names_the_attention():
    assert use_paged_attention(decoder()).config._attn_implementation == PAGED
