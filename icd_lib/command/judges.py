"""Judges that need no labels: how much of what the dense model says of held-out text a smaller copy still says.

An encoder is judged by its neighbours: of every text's ten nearest among the others, how many the dense model has too
(100 % is the dense model itself), with the mean cosine to its embeddings beside it. A language model is judged by the
next tokens that it gets right, which needs no labels and is true quality.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from icd_lib.data.batches import encode, token_batches
from icd_lib.errors import ConfigError
from icd_lib.measure.embed import TOKENS_PER_BATCH, embed
from icd_lib.storage.devices import device_of

NEIGHBOURS = 10


class Judge(Protocol):
    """`words`: what the percentage is, for people; `detail()`: what else was seen of the model judged last."""

    words: str

    def __call__(self, model: nn.Module) -> float: ...

    def detail(self) -> dict[str, float]: ...


@dataclass
class OwnJudge:
    """A function of the user's, model → percent, called `words`."""

    words: str
    function: Callable[[nn.Module], float]

    def __call__(self, model: nn.Module) -> float:
        return self.function(model)

    def detail(self) -> dict[str, float]:
        return {}


class NeighbourJudge:
    """Shared nearest neighbours with the dense model, percent; `cosine` is the mean one of the last model judged."""

    words = f"of every text's {NEIGHBOURS} nearest neighbours, the share that the dense model has too"

    def __init__(self, dense: nn.Module, tokenizer, texts: list[str], max_length: int):
        self.sequences = encode(tokenizer, texts, max_length)
        self.dense = embed(dense, self.sequences)[0]
        self.near = nearest(self.dense)
        self.cosine = 1.0

    def __call__(self, model: nn.Module) -> float:
        embeddings = embed(model, self.sequences)[0]
        self.cosine = float((embeddings * self.dense).sum(1).mean())
        shared = (nearest(embeddings)[:, :, None] == self.near[:, None, :]).any(2)
        return 100 * float(shared.mean())

    def detail(self) -> dict[str, float]:
        return {"mean_cosine": self.cosine}


def nearest(embeddings: np.ndarray, count: int = NEIGHBOURS) -> np.ndarray:
    """Rows of the `count` most similar other texts of each, int (n, count); embeddings (n, D) of unit length."""
    similar = embeddings @ embeddings.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, : min(count, len(embeddings) - 1)]


class NextTokenJudge:
    """Next tokens of the held-out texts that a language model gets right, percent."""

    words = "next tokens of held-out text that are right"

    def __init__(self, dense: nn.Module, tokenizer, texts: list[str], max_length: int):
        self.sequences = [ids for ids in encode(tokenizer, texts, max_length) if len(ids) > 1]
        if not self.sequences:
            raise ConfigError("no text has two tokens, so there is no next token to judge by; give longer texts")

    def __call__(self, model: nn.Module) -> float:
        right, total, device = 0, 0, device_of(model)
        with torch.inference_mode():
            for _, input_ids, mask in token_batches(self.sequences, TOKENS_PER_BATCH):
                input_ids, mask = input_ids.to(device), mask.to(device)
                guess = model(input_ids=input_ids, attention_mask=mask).logits[:, :-1].argmax(-1)
                real = mask[:, 1:].bool()
                right += int((guess.eq(input_ids[:, 1:]) & real).sum())
                total += int(real.sum())
        return 100 * right / total

    def detail(self) -> dict[str, float]:
        return {}


JUDGES: dict[str, Callable[..., Judge]] = {
    "encoder": NeighbourJudge,
    "language": NextTokenJudge,
}
