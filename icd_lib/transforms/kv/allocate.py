"""How many tokens each layer keeps: more where attention is spread over many, fewer where few of them draw it."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from icd_lib.errors import ConfigError
from icd_lib.models.cache.cache import PagedCache
from icd_lib.transforms.kv.scores import attention_scores


def measure_mass(model: nn.Module, prompts: Iterable[torch.Tensor], observe: int = 32) -> np.ndarray:
    """Attention mass by rank, float64 (layers, n): row l holds what its best, second, ... n-th token draws.

    prompts: token ids (B, n), all of one length, no padding. Means over rows, prompts and KV groups; each row sums
    to 1. `model` attends as `use_paged_attention` says.
    """
    total, count = None, 0
    for ids in prompts:
        cache = PagedCache(model, observed=observe)
        with torch.inference_mode():
            model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
            curves = [_by_rank(attention_scores(layer, layer.store.read()[0], observe)) for layer in cache.layers]
        found = torch.stack(curves).double().cpu().numpy()
        total = found if total is None else total + found
        count += 1
    if total is None:
        raise ConfigError("attention mass is measured on at least one prompt, got none")
    return total / count


def _by_rank(scores: torch.Tensor) -> torch.Tensor:
    return scores.sort(dim=-1, descending=True).values.mean((0, 1))


def allocate_budgets(mass: np.ndarray, budget: int, *, least: int, page: int, floor: float = 0.5) -> tuple[int, ...]:
    """Budgets in tokens, one a layer, `budget` on average, that together keep the most attention mass.

    mass: (layers, n) as `measure_mass` has it, falling in every row. Tokens are dealt in pages, each where the next
    page of ranks holds the most; as the rows fall, no other deal keeps more. Every layer gets at least
    max(least, floor · budget), in whole pages.

    >>> allocate_budgets(np.array([[4, 3, 2, 1, 1, 1], [9, 1, 0, 0, 0, 0]]) / 12, 3, least=1, page=1, floor=0.3)
    (5, 1)
    """
    layers, length = mass.shape
    first = -(-max(least, int(np.ceil(floor * budget))) // page)
    pages = layers * budget // page
    if first * layers > pages:
        raise ConfigError(
            f"kv.budget of {budget} tokens on average is below the {first * page} that every layer keeps; raise it or "
            "lower the floor"
        )
    whole = length // page
    worth = mass[:, : whole * page].reshape(layers, whole, page).sum(-1)
    worth[:, : min(first, whole)] = np.inf
    best = np.argsort(-worth, axis=None, kind="stable")[:pages]
    dealt = np.bincount(best // whole, minlength=layers) if whole else np.zeros(layers, int)
    return tuple(int(max(count, first)) * page for count in dealt)
