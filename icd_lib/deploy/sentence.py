"""The files by which sentence-transformers reads an encoder: how tokens become one embedding of a text."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from icd_lib.errors import ConfigError
from icd_lib.storage.json_text import read_text

POOLINGS = ("mean", "cls", "max")
_MAX_LENGTH = 2**20  # tokenizers that know no limit say a number beyond all texts


@dataclass(frozen=True)
class Pooling:
    """mode: one of `POOLINGS`; normalize: to unit length; max_length: tokens of a text that are read, None: all."""

    mode: str = "mean"
    normalize: bool = True
    max_length: int | None = None

    def __post_init__(self):
        if self.mode not in POOLINGS:
            raise ConfigError(f"pooling {self.mode!r} is unknown; it takes one of {', '.join(POOLINGS)}")

    def within(self, tokenizer, config) -> "Pooling":
        """The same, reading no more tokens than tokenizer and model take."""
        positions = getattr(config, "max_position_embeddings", None)
        limits = [self.max_length, getattr(tokenizer, "model_max_length", None), positions]
        known = [limit for limit in limits if limit and limit < _MAX_LENGTH]
        return Pooling(self.mode, self.normalize, min(known, default=None))

    def __call__(self, states: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Embeddings (B, D) of hidden states (B, L, D) and their mask (B, L)."""
        seen = mask[..., None].astype(states.dtype)
        if self.mode == "cls":
            pooled = states[:, 0]
        elif self.mode == "max":
            pooled = np.where(seen > 0, states, -np.inf).max(1)
        else:
            pooled = (states * seen).sum(1) / seen.sum(1)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True) if self.normalize else pooled


def read_pooling(folder: Path | None) -> Pooling:
    """How a checkpoint says that its embeddings are made; the mean of unit length where it says nothing."""
    if folder is None or not (folder / "modules.json").is_file():
        return Pooling()
    modules = [str(module.get("type", "")).rpartition(".")[2] for module in read_text(folder / "modules.json")]
    said = _object(folder / "1_Pooling" / "config.json")
    older = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
    mode = said.get("pooling_mode") or next((mode for mode, key in older.items() if said.get(key)), "mean")
    length = _object(folder / "sentence_bert_config.json").get("max_seq_length")
    return Pooling(mode, "Normalize" in modules, length if isinstance(length, int) else None)


def write_pooling(folder: Path, pooling: Pooling, width: int, arguments: dict) -> None:
    """Write modules.json, 1_Pooling/config.json and sentence_bert_config.json; `arguments` go to the model's class."""
    names = ["Transformer", "Pooling", *(["Normalize"] if pooling.normalize else [])]
    paths = ["", *(f"{place}_{name}" for place, name in enumerate(names) if place)]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"}
        for place, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    # Of "pooling_mode_…" every release reads its own; version 6 takes them too.
    older = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
    modes = {f"pooling_mode_{key}": mode == pooling.mode for key, mode in older.items()}
    read: dict = {"max_seq_length": pooling.max_length, "do_lower_case": False}
    if arguments:
        read["model_args"] = arguments
    for path in paths[1:]:
        (folder / path).mkdir()
    _write(folder / "modules.json", modules)
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    if pooling.normalize:
        _write(folder / "2_Normalize" / "config.json", {})
    _write(folder / "sentence_bert_config.json", read)


def _write(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _object(path: Path) -> dict:
    found = read_text(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}
