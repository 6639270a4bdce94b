"""Embeddings of texts by an encoder, and how outputs of models are kept on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from icd_lib.data.batches import token_batches
from icd_lib.errors import ArtifactError, MeasureError

TOKENS_PER_BATCH = 2048
Progress = Callable[[int, int], None]  # (done, in all)


def embed(
    model, sequences: list[list[int]], *, own_head: bool = False, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean-pooled, L2-normalised embeddings (n, D) float32 of token sequences, and head logits (n, classes) or None.

    Raises `MeasureError` when the model returns something that is not finite.
    """
    encoder = model if own_head else getattr(model, "base_model", model)  # without a task head the encoder alone runs
    extra = {"output_hidden_states": True} if own_head else {}
    total, done = sum(map(len, sequences)), 0
    embeddings = logits = None
    with torch.inference_mode():
        for indices, input_ids, mask in token_batches(sequences, TOKENS_PER_BATCH):
            output = encoder(input_ids=input_ids, attention_mask=mask, **extra)
            hidden = output.hidden_states[-1] if own_head else output.last_hidden_state
            pooled = mean_pool(hidden, mask)
            if embeddings is None:
                embeddings = np.empty((len(sequences), pooled.shape[1]), np.float32)
                logits = np.empty((len(sequences), output.logits.shape[1]), np.float32) if own_head else None
            embeddings[indices] = pooled.float().numpy()
            if own_head:
                logits[indices] = output.logits.float().numpy()
            done += sum(len(sequences[i]) for i in indices)
            if progress is not None:
                progress(done, total)
    if embeddings is None:
        raise MeasureError("there is no text to embed; name domains (data.unseen) or raise data.test_items")
    if not np.isfinite(embeddings).all():
        bad = int(np.argmin(np.isfinite(embeddings).all(axis=1)))
        raise MeasureError(f"the model's embedding of text {bad} is not finite; check its weights")
    return embeddings, logits


def mean_pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of the unmasked tokens of hidden (B, L, D), mask (B, L), then scaled to unit length: (B, D)."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)


def save_tensors(tensors: dict[str, np.ndarray], path: Path, meta: dict[str, str]) -> None:
    """Write arrays and words as safetensors, wholly or not at all; `ArtifactError` where that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, partial, metadata=meta)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise ArtifactError(f"cannot write {path} ({error}); check the free space and the rights of --out") from error


def load_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What `save_tensors` wrote; `ArtifactError` if it is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is missing or damaged ({error}); run the stage that writes it again") from error
