"""Attention of grouped query heads over the keys and values of their group: no head is repeated.

Shapes: query (B, H, L, d) with r = H / G query heads for each of G KV heads, keys and values (B, G, n, d), bias
(B, G, 1, n) added to the products, the most negative number for a slot that holds nothing.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from icd_lib.models.cache.store import FloatStore

LARGEST_MASK = 1 << 23  # numbers of a mask at one time: 32 MiB in float32


def attend_new(query: torch.Tensor, store: FloatStore, bias: torch.Tensor | None, scaling: float) -> torch.Tensor:
    """One token's attention over all slots, (B, H, 1, d): the r heads of a group are the rows of one product."""
    batch, heads, _, size = query.shape
    grouped = (query * scaling).reshape(batch, store.keys.shape[1], -1, size)
    scores = store.scores(grouped)
    if bias is not None:
        scores = scores + bias
    weights = scores.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)
    return store.mix(weights).reshape(batch, heads, 1, size)


def attend_prompt(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float) -> torch.Tensor:
    """Causal attention of a whole prompt without holes, (B, H, L, d)."""
    out = torch.empty_like(query)
    for mine, heads in _of_groups(query, out, keys.shape[1]):
        heads.copy_(scaled_dot_product_attention(mine, keys, values, is_causal=True, scale=scaling))
    return out


def attend_past(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    """Attention of the newest L tokens over what was there before and, causally, over themselves; (B, H, L, d).

    Their keys are the last L slots. Queries are taken a few at a time, so that no mask of all pairs is ever made.
    """
    out, new, slots = torch.empty_like(query), query.shape[2], keys.shape[2]
    lowest = torch.finfo(query.dtype).min
    step = max(1, LARGEST_MASK // (slots * (1 if bias is None else bias.shape[0] * bias.shape[1])))
    slot = torch.arange(slots, device=query.device)
    for first in range(0, new, step):
        last = min(new, first + step)
        own = slot[slots - new + first : slots - new + last]
        mask = query.new_zeros(last - first, slots).masked_fill_(slot > own[:, None], lowest)[None, None]
        if bias is not None:
            mask = torch.minimum(mask, bias)
        for mine, heads in _of_groups(query[:, :, first:last], out[:, :, first:last], keys.shape[1]):
            heads.copy_(scaled_dot_product_attention(mine, keys, values, attn_mask=mask, scale=scaling))
    return out


def attend_stock(query, keys, values, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
    """Causal attention without a cache or with one of Transformers' own, (B, H, L, d).

    mask: bool (B, n), which tokens are no padding, or None.
    """
    if mask is None and query.shape[2] == keys.shape[2]:
        return attend_prompt(query, keys, values, scaling)
    bias = None
    if mask is not None:
        hidden, lowest = ~mask[:, None, None], torch.finfo(query.dtype).min
        bias = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device).masked_fill_(hidden, lowest)
    return attend_past(query, keys, values, bias, scaling)


def _of_groups(query: torch.Tensor, out: torch.Tensor, groups: int):
    """Yield views (B, G, L, d) of the queries and of the outputs of one query head of every group at a time."""
    batch, heads, tokens, size = query.shape
    split = batch, groups, heads // groups, tokens, size
    queries, outs = query.unflatten(1, split[1:3]), out.unflatten(1, split[1:3])
    for head in range(heads // groups):
        yield queries[:, :, head], outs[:, :, head]
