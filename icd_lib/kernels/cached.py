"""Attention of one token over keys and values in int8: tensors in, tensors out.

codes int8 (B, G, capacity, page, d); scales float16, of keys (B, G, capacity, 1, d), of values (B, G, capacity, page,
1); the first `pages` of the capacity are taken. On CPUs compiled kernels read the codes as they are; the `_ref`
functions take a few pages at a time to float, on any device. Computed in float64 if the query is, else in float32.
"""

import numpy as np
import torch

PAGES_AT_ONCE = 16  # of every row and group: what they take in float stays near the core
_SINGLE_THREAD = 1 << 15  # codes below which waking other threads costs more than it saves


def int8_scores(query, codes, scales, pages: int, slots: int) -> torch.Tensor:
    """Products of grouped queries (B, G, r, d) with the first pages' keys, (B, G, r, slots); later ones are not set."""
    if query.device.type != "cpu":
        return int8_scores_ref(query, codes, scales, pages, slots)
    kind = _kind(query)
    out = torch.empty(*query.shape[:3], slots, dtype=kind)
    _run("scores", query.to(kind), codes, scales, pages, slots, out)
    return out.to(query.dtype)


def int8_mix(weights, codes, scales, pages: int) -> torch.Tensor:
    """Sum of the first pages' values by weights (B, G, r, slots) of all slots, (B, G, r, d)."""
    if weights.device.type != "cpu":
        return int8_mix_ref(weights, codes, scales, pages)
    kind = _kind(weights)
    chunks = -(-pages // PAGES_AT_ONCE)
    parts = torch.empty(*weights.shape[:2], chunks, weights.shape[2], codes.shape[4], dtype=kind)
    _run("mix", weights.to(kind), codes, scales, pages, weights.shape[3], parts)
    return parts.sum(2).to(weights.dtype)


def int8_scores_ref(query, codes, scales, pages: int, slots: int) -> torch.Tensor:
    """`int8_scores` in torch."""
    page = codes.shape[3]
    found = query.new_empty(*query.shape[:3], slots)
    for first, last in _chunks(pages):
        keys = codes[:, :, first:last] * scales[:, :, first:last].to(query.dtype)
        found[..., first * page : last * page] = query @ keys.flatten(2, 3).transpose(-1, -2)
    return found


def int8_mix_ref(weights, codes, scales, pages: int) -> torch.Tensor:
    """`int8_mix` in torch."""
    page = codes.shape[3]
    scaled = weights[..., : pages * page] * scales[:, :, :pages].flatten(2).to(weights.dtype)[:, :, None]
    mixed = weights.new_zeros(*weights.shape[:3], codes.shape[4])
    for first, last in _chunks(pages):
        values = codes[:, :, first:last].flatten(2, 3).to(weights.dtype)
        mixed += scaled[..., first * page : last * page] @ values
    return mixed


def _run(name: str, given, codes, scales, pages: int, slots: int, out: torch.Tensor) -> None:
    from icd_lib.kernels import cpu_int8  # numba loads slowly

    batch, groups, capacity, page, size = codes.shape
    heads, given = given.shape[2], given.contiguous()
    tasks = batch * groups * -(-pages // PAGES_AT_ONCE)
    head = [0, tasks, out.element_size(), heads, size, page, pages, capacity, slots, PAGES_AT_ONCE]
    addresses = [tensor.data_ptr() for tensor in (codes, scales, given, out)]
    threads = 1 if batch * groups * pages * page * size < _SINGLE_THREAD else torch.get_num_threads()
    getattr(cpu_int8, name)(np.array(head + addresses, dtype=np.int64), threads)


def _kind(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _chunks(pages: int):
    for first in range(0, pages, PAGES_AT_ONCE):
        yield first, min(pages, first + PAGES_AT_ONCE)
