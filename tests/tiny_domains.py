"""Toy domains of made-up words, a tokenizer for them and tiny random encoders: for the tests of data and judges."""

import copy
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizerFast

from icd_lib.data.domains import DomainText

WORDS = [f"w{i}" for i in range(60)]
CLASSES = 3


def toy_domain(name="toy", documents=40, per_document=3, seed=0, **changes) -> DomainText:
    """Distinct texts of nine words: seven of their document's eight, which are its class's, and two of any.

    Tasks: the class, the next text of a document as the answer to the one before, and which texts share a document.
    """
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(documents), per_document)
    classes = number % CLASSES
    own = [rng.choice(20, size=8, replace=False) + 20 * (document % CLASSES) for document in range(documents)]
    texts = []
    for place, document in enumerate(number):
        words = [*rng.permutation(own[document])[:7], *rng.integers(60, size=2)]
        texts.append(" ".join([name, *(WORDS[w] for w in words), f"n{place}"]))
    inside = np.flatnonzero(number[:-1] == number[1:])
    given = {
        "labels": {"class": classes.astype(np.int64)},
        "documents": number.astype(np.int64),
        "pairs": np.stack([inside, inside + 1], axis=1),
        "same_document": True,
        "provenance": {"package": "toy"},
    }
    return DomainText(name, texts, **(given | changes))


def plain_domain(name: str, texts: list[str], documents=None) -> DomainText:
    """Given texts with nothing known of them but their documents (default: each is one of its own)."""
    numbers = np.arange(len(texts)) if documents is None else np.asarray(documents)
    return DomainText(name, list(texts), {}, numbers.astype(np.int64))


def toy_tokenizer(folder) -> BertTokenizerFast:
    """A tokenizer that knows WORDS, and writes other words as [UNK]."""
    path = folder / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BertTokenizerFast(vocab=str(path))


def toy_encoder(model_class=BertModel, seed=0, **options):
    """A random two-layer encoder over the toy vocabulary."""
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "initializer_range": 0.2,
    }
    return model_class(BertConfig(vocab_size=len(WORDS) + 5, **sizes, **options)).eval().requires_grad_(False)


def damage(model, share=0.8):
    """The same model without the embeddings of `share` of the words: it cannot tell them apart."""
    model = copy.deepcopy(model)
    model.base_model.embeddings.word_embeddings.weight[-int(share * len(WORDS)) :] = 0
    return model


class Rotated(nn.Module):
    """An encoder whose hidden states are turned by a random orthogonal matrix: another basis, the same geometry."""

    def __init__(self, model: nn.Module, seed: int = 0):
        super().__init__()
        width = model.config.hidden_size
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]
        self.model, self.turn = model, torch.from_numpy(turn).float()

    def forward(self, **inputs):
        return SimpleNamespace(last_hidden_state=self.model(**inputs).last_hidden_state @ self.turn)
