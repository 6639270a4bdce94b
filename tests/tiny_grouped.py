"""A tiny decoder whose columns fall into groups of 8 and 16, and its batches."""

import torch

from tests.tiny_decoders import VOCAB, tiny_decoder

SIZES = {"hidden_size": 48, "intermediate_size": 80, "head_dim": 8}


def decoder(kind="llama", seed=0, dtype=torch.float32, **changes):
    """Two layers, three KV groups of two query heads."""
    return tiny_decoder(kind, seed=seed, dtype=dtype, **(SIZES | changes))


def batches(count=3, rows=6, length=16, seed=3, padded=True):
    """Random tokens, the first row of each batch padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        mask = torch.ones(rows, length, dtype=torch.long)
        if padded:
            mask[0, : length // 2] = 0
        ids = torch.randint(1, VOCAB, (rows, length), generator=generator)
        found.append({"input_ids": ids, "attention_mask": mask})
    return found
