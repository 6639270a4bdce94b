"""Embeddings of texts by an encoder."""

from collections.abc import Callable

import numpy as np
import torch

from icd_lib.data.batches import token_batches
from icd_lib.errors import MeasureError, NotFinite
from icd_lib.storage.devices import device_of, telling_of_memory

TOKENS_PER_BATCH = 2048
Progress = Callable[[int, int], None]  # (done, in all)


def embed(
    model, sequences: list[list[int]], *, own_head: bool = False, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean-pooled, L2-normalised embeddings (n, D) float32 of token sequences, and head logits (n, classes) or None.

    Raises `NotFinite` when the model returns something that is not finite.
    """
    encoder = model if own_head else getattr(model, "base_model", model)  # without a task head the encoder alone runs
    extra = {"output_hidden_states": True} if own_head else {}
    total, done, device = sum(map(len, sequences)), 0, device_of(encoder)
    embeddings = logits = None
    with torch.inference_mode():
        for indices, input_ids, mask in token_batches(sequences, TOKENS_PER_BATCH):
            mask = mask.to(device)
            with telling_of_memory(f"texts of {tuple(mask.shape)} tokens were embedded", "lower data.max_length"):
                output = encoder(input_ids=input_ids.to(device), attention_mask=mask, **extra)
            hidden = output.hidden_states[-1] if own_head else output.last_hidden_state
            pooled = mean_pool(hidden, mask)
            if embeddings is None:
                embeddings = np.empty((len(sequences), pooled.shape[1]), np.float32)
                logits = np.empty((len(sequences), output.logits.shape[1]), np.float32) if own_head else None
            embeddings[indices] = pooled.float().cpu().numpy()
            if logits is not None:
                logits[indices] = output.logits.float().cpu().numpy()
            done += sum(len(sequences[i]) for i in indices)
            if progress is not None:
                progress(done, total)
    if embeddings is None:
        raise MeasureError("there is no text to embed; name domains (data.unseen) or raise data.test_items")
    if not np.isfinite(embeddings).all():
        bad = int(np.argmin(np.isfinite(embeddings).all(axis=1)))
        raise NotFinite(f"the model's embedding of text {bad} is not finite; check its weights")
    return embeddings, logits


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the unmasked tokens of hidden (B, L, D), mask (B, L), then scaled to unit length: (B, D)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
