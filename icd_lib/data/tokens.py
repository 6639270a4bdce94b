"""Texts as tokens, kept on this machine where there is much text: every stage of a run reads the same domains."""

import contextlib
import hashlib
import json

import numpy as np

from icd_lib.errors import ArtifactError
from icd_lib.storage.machine import kept_file
from icd_lib.storage.tensor_file import load_tensors, save_tensors

LEAST = 200_000  # characters from which on reading a file is faster than encoding


def encode(tokenizer, texts: list[str]) -> list[np.ndarray]:
    """Tokens of every text, int64, without the tokenizer's special ones."""
    if not texts:
        return []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or sum(map(len, texts)) < LEAST:
        return _encoded(tokenizer, texts)
    key = {
        "tokenizer": hashlib.sha256(backend.to_str().encode()).hexdigest(),
        "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
    }
    path = kept_file("tokens", key).with_suffix(".safetensors")
    with contextlib.suppress(ArtifactError, KeyError):
        arrays, _ = load_tensors(path)
        return np.split(arrays["ids"].astype(np.int64), arrays["ends"][:-1])
    found = _encoded(tokenizer, texts)
    arrays = {"ids": np.concatenate(found).astype(np.int32), "ends": np.cumsum([len(ids) for ids in found])}
    with contextlib.suppress(ArtifactError):  # a cache that cannot be written costs time only
        save_tensors(arrays, path, {})
    return found


def _encoded(tokenizer, texts: list[str]) -> list[np.ndarray]:
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    return [np.array(ids, dtype=np.int64) for ids in tokenizer(texts, **options)["input_ids"]]
