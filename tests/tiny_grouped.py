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


def loss_of(model, dense):
    """Mean KL to the dense model."""
    total = []
    for inputs in batches(4, seed=11):
        mask = inputs["attention_mask"].bool()
        log_p, log_q = (item(**inputs).logits[mask].log_softmax(-1) for item in (dense, model))
        total.append((log_p.exp() * (log_p - log_q)).sum(-1).mean())
    return float(torch.stack(total).mean())
