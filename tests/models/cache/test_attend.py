"""Attention over groups equals the plain formula with every head written out."""

import pytest
import torch

from icd_lib.models.cache import attend
from icd_lib.models.cache.attend import attend_new, attend_past, attend_prompt, attend_stock
from icd_lib.models.cache.store import FloatStore

B, G, R, D = 2, 3, 2, 6
LOWEST = torch.finfo(torch.float64).min


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(query, keys, values, visible, scaling):
    """softmax(q k^T s) v of each head with its group's keys; visible: bool, broadcast to (B, H, L, n)."""
    keys, values = (states.repeat_interleave(R, 1) for states in (keys, values))
    logits = torch.einsum("bhld,bhnd->bhln", query, keys) * scaling
    weights = logits.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("bhln,bhnd->bhld", weights, values)


def causal(new, slots):
    return torch.arange(slots) <= torch.arange(slots - new, slots)[:, None]


def holes(slots):
    """bool (B, G, slots), a few holes, never the last slots."""
    dead = draw(B, G, slots, seed=5) > 0.8
    dead[:, :, -4:] = False
    return dead


def bias_of(dead):
    return torch.zeros(dead.shape, dtype=torch.float64).masked_fill(dead, LOWEST)[:, :, None]


@pytest.mark.parametrize("with_holes", [False, True])
def test_one_token(with_holes):
    query, keys, values, store = (
        draw(B, G * R, 1, D),
        draw(B, G, 21, D, seed=1),
        draw(B, G, 21, D, seed=2),
        FloatStore(4),
    )
    store.append(keys, values)
    dead = holes(21) if with_holes else torch.zeros(B, G, 21, dtype=torch.bool)
    visible = ~dead.repeat_interleave(R, 1)[:, :, None]
    found = attend_new(query, store, bias_of(dead) if with_holes else None, 0.3)
    assert torch.allclose(found, plain(query, keys, values, visible, 0.3), rtol=1e-12, atol=1e-14)


def test_a_prompt():
    query, keys, values = draw(B, G * R, 9, D), draw(B, G, 9, D, seed=1), draw(B, G, 9, D, seed=2)
    expected = plain(query, keys, values, causal(9, 9), 0.3)
    assert torch.allclose(attend_prompt(query, keys, values, 0.3), expected, rtol=1e-12, atol=1e-14)
    assert torch.allclose(attend_stock(query, keys, values, None, 0.3), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("with_holes", [False, True])
@pytest.mark.parametrize("most", [1, 40, 1 << 23])  # numbers of a mask: one query at a time, some, all
def test_tokens_after_a_past(monkeypatch, with_holes, most):
    monkeypatch.setattr(attend, "LARGEST_MASK", most)
    query, keys, values = draw(B, G * R, 4, D), draw(B, G, 21, D, seed=1), draw(B, G, 21, D, seed=2)
    dead = holes(21) if with_holes else torch.zeros(B, G, 21, dtype=torch.bool)
    visible = causal(4, 21) & ~dead.repeat_interleave(R, 1)[:, :, None]
    found = attend_past(query, keys, values, bias_of(dead) if with_holes else None, 0.3)
    assert torch.allclose(found, plain(query, keys, values, visible, 0.3), rtol=1e-12, atol=1e-14)


def test_what_lies_in_a_hole_is_never_read():
    query, keys, values, store = draw(B, G * R, 1, D), draw(B, G, 8, D, seed=1), draw(B, G, 8, D, seed=2), FloatStore(4)
    store.append(keys, values)
    dead = torch.zeros(B, G, 8, dtype=torch.bool)
    dead[:, :, 2] = True
    before = attend_new(query, store, bias_of(dead), 0.3)
    store.keys[:, :, 2], store.values[:, :, 2] = 1e3, 1e3
    assert torch.equal(attend_new(query, store, bias_of(dead), 0.3), before)
