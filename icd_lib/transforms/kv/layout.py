"""Where the living tokens of a layer lie after an eviction: slots to take, and which of them are alive.

Attention is a sum over tokens that carry their own positions, so any order of them gives the same output. All rows and
groups of a layer are read with one length: those that have less are filled up in front with slots that count as holes,
so that the newest token is the last slot of all.
"""

import torch

from icd_lib.models.cache.store import whole_pages


def linear_layout(keep: torch.Tensor, page: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every page that has a living token stays as it is, holes and all; wholly dead pages go.

    keep: bool (B, G, n). Returns slots int64 and alive bool, (B, G, m) each: pages of the fullest row and group, the
    last one no longer than it was.
    """
    count = keep.shape[2]
    padded = torch.zeros(*keep.shape[:2], whole_pages(count, page), dtype=torch.bool, device=keep.device)
    padded[:, :, :count] = keep
    pages, exists = _packed(padded.unflatten(2, (-1, page)).any(-1))
    offsets = torch.arange(page, device=keep.device)
    slots = (pages[..., None] * page + offsets).flatten(2)
    alive = exists[..., None].expand(*exists.shape, page).flatten(2) & padded.gather(2, slots)
    length = slots.shape[2] - (padded.shape[2] - count)
    return slots[:, :, :length].clamp(max=count - 1), alive[:, :, :length]


def iterative_layout(keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The living tokens one after the other, in the order they had; the rest goes.

    keep: bool (B, G, n). Returns slots int64 and alive bool, (B, G, most living): no holes where all have as many.
    """
    return _packed(keep)


def count_pages(alive: torch.Tensor, page: int) -> torch.Tensor:
    """Pages with a living token, of every row and group: int64 (B, G); alive: bool (B, G, n).

    >>> count_pages(torch.tensor([[[True, False, False, False, True]]]), 2)
    tensor([[2]])
    """
    padded = torch.zeros(*alive.shape[:2], whole_pages(alive.shape[2], page), dtype=torch.bool, device=alive.device)
    padded[:, :, : alive.shape[2]] = alive
    return padded.unflatten(2, (-1, page)).any(-1).sum(-1)


def _packed(keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of what is kept, in order and ending together, and which of them are real; (B, G, most kept)."""
    most = int(keep.sum(-1).max())
    order = keep.to(torch.uint8).sort(dim=-1, stable=True).indices[..., keep.shape[2] - most :]
    return order, keep.gather(2, order)
