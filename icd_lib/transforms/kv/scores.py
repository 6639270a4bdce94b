"""What a cached token is worth, higher is better: (B, G, n) over the slots of a layer, float32 or wider."""

from collections.abc import Callable

import torch
from torch.nn.functional import max_pool1d

from icd_lib.models.cache.layer import DEAD, PagedLayer

LARGEST = 1 << 24  # attention weights at one time


def attention_scores(layer: PagedLayer, keys: torch.Tensor, observe: int) -> torch.Tensor:
    """Mean attention that the last `observe` queries of a group's heads paid to each slot (SnapKV, Li et al. 2024).

    s_j = 1 / (w r) Σ_q softmax_j(q · k_j · scaling), over the w queries and r heads; a query sees the living tokens up
    to its own column. Queries that are padding count for nothing. A few queries are taken at a time, so a prompt's
    whole matrix is never there.
    """
    queries = layer.queries[:, :, -observe:]
    batch, groups, slots = keys.shape[:3]
    heads, size, width = queries.shape[1] // groups, queries.shape[3], queries.shape[2]
    queries = queries.unflatten(1, (groups, heads))
    columns = layer.all_columns()
    own = torch.arange(layer.seen - width, layer.seen, device=keys.device)
    counts = torch.ones(batch, width, dtype=torch.bool, device=keys.device)
    if layer.start is not None:
        counts = own[None] >= layer.start[:, None]
    total = keys.new_zeros(batch, groups, slots, dtype=torch.promote_types(keys.dtype, torch.float32))
    lowest = torch.finfo(total.dtype).min
    step = max(1, LARGEST // (batch * groups * heads * slots))
    for first in range(0, width, step):
        some = queries[:, :, :, first : first + step]
        logits = some.reshape(batch, groups, -1, size) @ keys.transpose(-1, -2)
        logits = logits.to(total.dtype).mul_(layer.scaling).unflatten(2, (heads, -1))
        unseen = (columns[:, :, None] > own[first : first + step, None]) | (columns == DEAD)[:, :, None]
        weights = logits.masked_fill_(unseen[:, :, None], lowest).softmax(-1)
        total += (weights * counts[:, None, None, first : first + step, None]).sum((2, 3))
    return total / (heads * counts.sum(1).clamp(min=1))[:, None, None]


def recent_scores(layer: PagedLayer) -> torch.Tensor:
    """The later, the better."""
    return layer.all_columns().float()


def key_norm_scores(keys: torch.Tensor) -> torch.Tensor:
    """Keys of a small norm draw much attention (Devoto et al. 2024): −‖k‖."""
    return -keys.to(torch.promote_types(keys.dtype, torch.float32)).norm(dim=-1)


def random_scores(layer: PagedLayer, seed: int) -> torch.Tensor:
    """A placebo: the same number for a token in whatever slot it is, another in every layer and at every eviction."""
    columns = layer.all_columns()
    generator = torch.Generator().manual_seed((seed * 1_000_003 + layer.index) * 1_000_003 + layer.seen)
    drawn = torch.rand(*columns.shape[:2], layer.seen, generator=generator).to(columns.device)
    return drawn.gather(2, columns.clamp(min=0).long())


SCORES: dict[str, Callable] = {
    "attention": lambda layer, keys, policy: attention_scores(layer, keys, policy.observe),
    "recent": lambda layer, keys, policy: recent_scores(layer),
    "random": lambda layer, keys, policy: random_scores(layer, policy.seed),
    "key_norm": lambda layer, keys, policy: key_norm_scores(keys),
}


def score_slots(layer: PagedLayer, keys: torch.Tensor, policy) -> torch.Tensor:
    """Scores of a policy (`KvPolicy`), pooled over neighbours where it says so."""
    scores = SCORES[policy.score](layer, keys, policy)
    if policy.pool > 1:
        scores = max_pool1d(scores.flatten(0, 1), policy.pool, stride=1, padding=policy.pool // 2).view_as(scores)
    return scores
