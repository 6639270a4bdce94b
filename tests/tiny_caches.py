"""Tiny decoders with caches in pages, and prompts for them, that several test modules share."""

import torch
from tiny_decoders import VOCAB, tiny_decoder

from icd_lib.models.cache import PagedCache, use_paged_attention
from icd_lib.transforms.kv import KvEvictor, KvPolicy

PAGE = 4
POLICY = KvPolicy(budget=24, sinks=2, window=5, observe=6, every=7, page=PAGE)


def stock_decoder(kind="llama", **changes):
    """A tiny decoder with full attention and positions enough, as Transformers has it."""
    extra = {"sliding_window": None} if kind == "mistral" else {}
    return tiny_decoder(kind, **({"max_position_embeddings": 256} | extra | changes))


def paged_decoder(kind="llama", **changes):
    return use_paged_attention(stock_decoder(kind, **changes))


def cache_of(model, policy=POLICY, **options):
    """A cache that evicts by `policy`."""
    return PagedCache(model, page=PAGE, evictor=KvEvictor(policy), **options)


def prompt(batch=2, length=61, seed=0):
    """Random tokens (batch, length)."""
    return torch.randint(3, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


def uneven(seed=0):
    """Three prompts of 37, 20 and 5 tokens, padded on the left, and their mask."""
    ids, mask = prompt(3, 37, seed), torch.ones(3, 37, dtype=torch.long)
    for row, length in ((1, 20), (2, 5)):
        mask[row, : 37 - length] = 0
        ids[row, : 37 - length] = 0
    return {"input_ids": ids, "attention_mask": mask}


def decode(model, inputs, cache, tokens=40):
    """Prompt and so many tokens by greedy search."""
    options = {"max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    return model.generate(**inputs, past_key_values=cache, **options)
