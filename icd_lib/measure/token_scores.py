"""Figures of predicted tokens from logits over a vocabulary, a few tokens at a time.

Whatever is computed of a token is computed of its row alone, so a few rows give the same bits as all of them at once;
they stay in the processor's cache, where passes over hundreds of megabytes wait for memory.
"""

from collections.abc import Iterator

import numpy as np
import torch

from icd_lib.errors import MeasureError

AT_ONCE = 1 << 18  # numbers of a matrix: a MiB in float32


def few_rows(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same few tokens of every tensor (b, S, ...), the first (b, S, V): on a CPU so many as its cache holds.

    >>> logits, targets = torch.zeros(1, 3, AT_ONCE // 2), torch.zeros(1, 3)
    >>> [(len(few), len(right)) for few, right in few_rows(logits, targets)]
    [(2, 2), (1, 1)]
    """
    first = tensors[0]
    step = max(1, AT_ONCE // first.shape[-1] if first.device.type == "cpu" else first.shape[1])
    for texts in zip(*tensors, strict=True):
        yield from zip(*(text.split(step) for text in texts), strict=True)


def right_tokens(logits: torch.Tensor, targets: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """log p(right token) float32 (b, S), and whether it is the argmax, bool (b, S). logits: float32 (b, S, V)"""
    log_probs, correct = [], []
    for few, right in few_rows(logits, targets):
        log_probs.append(few.gather(-1, right[:, None])[:, 0] - few.logsumexp(-1))
        correct.append(few.argmax(-1) == right)
    return _joined(log_probs, targets.shape), _joined(correct, targets.shape)


def divergence(reference: torch.Tensor, given: torch.Tensor) -> np.ndarray:
    """KL in nats, float32 (b, S): Σ_v p_v (log p_v − log q_v) of a reference's logits z^p and a model's z^q (b, S, V).

    As Σ_v p_v (z_v^p − z_v^q) − log Z_p + log Z_q: the differences are small, so float32 holds them; sums are float64.
    Raises `MeasureError` where the vocabularies differ.
    """
    if given.shape != reference.shape:
        raise MeasureError(
            f"the models have {given.shape[-1]} and {reference.shape[-1]} logits per token; KL to dense needs the "
            "same vocabulary"
        )
    reference = reference.to(given.device)
    found = []
    for few, of in few_rows(given, reference):
        weights, total, log_p = _normaliser(of)
        nearer = (weights.mul_(of - few)).sum(-1, dtype=torch.float64) / total
        found.append(nearer - log_p + _normaliser(few)[2])
    return _joined(found, given.shape[:2]).astype(np.float32)


def _normaliser(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """exp(z − max z), their sum in float64, and log Σ exp z in float64."""
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    total = weights.sum(-1, dtype=torch.float64)
    return weights, total, top[..., 0].double() + total.log()


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """log p of the whole vocabulary, float64 (b, S, V)."""
    found = [few.log_softmax(-1, dtype=torch.float64) for (few,) in few_rows(logits)]
    return torch.cat(found).reshape(logits.shape)


def against(
    log_p: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of logits (b, S, V): log q(right token) float32, whether it is the argmax, and KL to `log_p` float32, in float64.

    log_p: of `log_probabilities`, float64 (b, S, V)
    """
    log_probs, correct, kl = [], [], []
    for few, of, right in few_rows(logits, log_p, targets):
        log_q = few.log_softmax(-1, dtype=torch.float64)
        log_probs.append(log_q.gather(-1, right[:, None])[:, 0].float())
        correct.append(log_q.argmax(-1) == right)
        kl.append((of.exp() * (of - log_q)).sum(-1).float())
    shape = targets.shape
    return _joined(log_probs, shape), _joined(correct, shape), _joined(kl, shape)


def _joined(found: list[torch.Tensor], shape: torch.Size) -> np.ndarray:
    return torch.cat(found).reshape(shape).cpu().numpy()
