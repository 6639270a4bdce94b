"""From scores to what is kept: bool (B, G, n) over the slots of a layer."""

import torch

from icd_lib.models.cache.layer import DEAD
from icd_lib.models.cache.store import whole_pages


def protected_slots(columns: torch.Tensor, start: torch.Tensor | None, seen: int, sinks: int, window: int):
    """Slots of the first `sinks` and the last `window` tokens of every row, bool (B, G, n).

    columns: int (B, G, n), the token of each slot; start: (B,), first column that is no padding (None: 0).
    """
    first = sinks if start is None else (start + sinks)[:, None, None]
    return (columns != DEAD) & ((columns < first) | (columns >= seen - window))


def keep_tokens(scores: torch.Tensor, columns: torch.Tensor, protected: torch.Tensor, budget: int) -> torch.Tensor:
    """The `budget` best living tokens of every row and group, the protected ones first; fewer where fewer live.

    Of tokens that are worth the same the earlier slots win, whatever the layout.
    """
    ranked = scores.masked_fill(protected, torch.inf).masked_fill(columns == DEAD, -torch.inf)
    best = ranked.sort(dim=-1, descending=True, stable=True).indices[..., :budget]
    return torch.zeros_like(protected).scatter_(2, best, True) & (columns != DEAD)


def keep_pages(
    scores: torch.Tensor, columns: torch.Tensor, protected: torch.Tensor, budget: int, page: int
) -> torch.Tensor:
    """Whole pages of slots, the best by the sum of their living tokens' scores, as many as `budget` tokens fill.

    Scores below zero are counted from the lowest one up, so that a page with more tokens is never worth less for it.
    """
    living = columns != DEAD
    floor = scores.masked_fill(~living, torch.inf).amin(-1, keepdim=True).clamp(max=0)
    worth = _paged((scores - floor).masked_fill(~living, 0), page, 0.0).sum(-1)
    worth = worth.masked_fill(_paged(protected, page, False).any(-1), torch.inf)
    worth = worth.masked_fill(~_paged(living, page, False).any(-1), -torch.inf)
    best = worth.sort(dim=-1, descending=True, stable=True).indices[..., : budget // page]
    kept = torch.zeros_like(worth, dtype=torch.bool).scatter_(2, best, True)
    return kept.repeat_interleave(page, dim=2)[:, :, : columns.shape[2]] & living


def _paged(slots: torch.Tensor, page: int, filler) -> torch.Tensor:
    """Slots (B, G, n) as (B, G, pages, page), the last page filled up."""
    count = slots.shape[2]
    padded = slots.new_full((*slots.shape[:2], whole_pages(count, page)), filler)
    padded[:, :, :count] = slots
    return padded.unflatten(2, (-1, page))
