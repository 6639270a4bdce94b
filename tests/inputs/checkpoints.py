"""Checkpoints of tiny random models as users bring them: written by save_pretrained, then changed by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]


def written(
    folder: Path, model: nn.Module, change: Callable[[dict, dict], None] = lambda config, weights: None
) -> Path:
    """The checkpoint of `model` in `folder`, its config and its weights changed in place by `change`."""
    model.save_pretrained(folder)
    config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    change(config, weights)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    return folder


def loaded(folder: Path, family: str = "bert", dtype: torch.dtype = torch.float64) -> nn.Module:
    """The model that a run would get from the folder."""
    return load_model(resolve_checkpoint(str(folder), family=family), dtype)[0]
