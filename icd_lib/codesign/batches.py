"""The inputs that a caller gives for calibration: read into plain dicts of tensors, or refused with the cure.

Which keys a model takes is the model's business; here is checked what every family reads: `input_ids` (B, L), and an
`attention_mask` that fits them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from icd_lib.axes.verify import first_rows, model_outputs
from icd_lib.errors import FOREIGN, ConfigError, TransformError
from icd_lib.models.families import find_adapter

LEAST_TOKENS = 2
_WHOLE = (torch.int64, torch.int32)
_CURE = 'such as tokenizer(texts, padding=True, return_tensors="pt") gives them'


def read_batches(given: Any, name: str = "calibration") -> list[dict]:
    """The argument `name` as a list of input dicts, copied; one dict alone is one batch.

    Values: tensors, arrays or lists of numbers; numbers, flags and None go to the model as they are.
    Raises `ConfigError` naming the batch and the key.
    """
    given = [given] if isinstance(given, Mapping) else given
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigError(f"{name} takes dicts of the model's inputs, {_CURE}; got {_told(given)}")
    return [read_inputs(inputs, f"batch {number} of {name}") for number, inputs in enumerate(given)]


def check_enough(batches: list[dict]) -> None:
    """Raise `TransformError` where the calibration has too little text to learn from."""
    if not batches:
        raise TransformError("calibration is empty: pass at least one batch of the model's inputs")
    tokens = sum(int(valid_tokens(batch).sum()) for batch in batches)
    if tokens < LEAST_TOKENS:
        raise TransformError(
            f"calibration has {tokens} token{'s' * (tokens != 1)} that attention_mask keeps, and nothing can be "
            "learned from so few; pass more text (some thousand tokens at least are sensible)"
        )


def read_inputs(inputs: Any, where: str) -> dict:
    """One input dict, copied into tensors on the CPU; `where` names it in the words of a `ConfigError`."""
    if not isinstance(inputs, Mapping):
        raise ConfigError(f"{where} is {_told(inputs)}; it takes a dict of the model's inputs, {_CURE}")
    if odd := next((name for name in inputs if not isinstance(name, str)), None):
        raise ConfigError(f"{where} has the key {_told(odd)}; keys are names of the model's inputs")
    with torch.inference_mode(False):  # a copy made within could not be trained on
        read = {name: _tensor(value, f"{where}: {name}") for name, value in inputs.items()}
    if read.get("input_ids") is None:
        raise ConfigError(f"{where} has no input_ids, only {', '.join(read) or 'nothing'}; pass token ids, {_CURE}")
    _check_ids(read, where)
    _check_mask(read, where)
    return read


def valid_tokens(inputs: dict) -> torch.Tensor:
    """Bool (B, L): what the mask keeps."""
    mask, ids = inputs.get("attention_mask"), inputs["input_ids"]
    return torch.ones(ids.shape, dtype=torch.bool, device=ids.device) if mask is None else mask.bool()


def check_vocabulary(model: nn.Module, batches: list[dict]) -> None:
    """Raise `ConfigError` where a batch has a token id that the model does not have."""
    words = getattr(getattr(model, "config", None), "vocab_size", None)
    for number, batch in enumerate(batches if isinstance(words, int) else []):
        least, most = int(batch["input_ids"].min()), int(batch["input_ids"].max())
        if least < 0 or most >= words:
            raise ConfigError(
                f"batch {number} of calibration: input_ids has {most if most >= words else least}, and the vocabulary "
                f"of {type(model).__name__} has {words} tokens, from 0; tokenize with the model's own tokenizer"
            )


def check_runs(model: nn.Module, batches: list[dict]) -> None:
    """Raise an error of ours unless the model takes every batch and gives finite numbers for it.

    The first rows go through the whole model, all rows through its embeddings, where positions and kinds of tokens that
    it does not have show.
    """
    adapter = find_adapter(model)
    for number, batch in enumerate(batches):
        with torch.inference_mode():
            outputs = model_outputs(model, first_rows(batch))
            try:
                adapter.embed(batch)
            except torch.OutOfMemoryError:  # not the batch's fault
                raise
            except FOREIGN as error:
                raise ConfigError(
                    f"the embeddings of {type(model).__name__} cannot run on batch {number} of calibration "
                    f"({type(error).__name__}: {error}); pass what the model's forward takes"
                ) from error
        for name, value in outputs.items():
            if not bool(value.isfinite().all()):
                raise ConfigError(
                    f"{type(model).__name__} gives a {name} that is not finite for batch {number} of calibration; "
                    "mend the model or leave that text out"
                )


def _tensor(value: Any, where: str) -> Any:
    """Tensors, arrays and lists as a tensor of their own; everything else as it is."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True)
    if not isinstance(value, np.ndarray | list | tuple):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"it holds {array.dtype}")
        return torch.from_numpy(array.astype({"i": np.int64, "u": np.int64}.get(array.dtype.kind, array.dtype)))
    except (ValueError, TypeError, OverflowError) as error:
        raise ConfigError(
            f"{where} is no tensor and cannot be made one ({str(error).splitlines()[0][:120]}); texts of one batch are "
            f"padded to one length, {_CURE}, and what is not for the model is left out"
        ) from error


def _check_ids(inputs: dict, where: str) -> None:
    ids = inputs["input_ids"]
    if not torch.is_tensor(ids) or ids.dtype not in _WHOLE:
        got = f"{ids.dtype}" if torch.is_tensor(ids) else _told(ids)
        raise ConfigError(f"{where}: input_ids takes token ids, whole numbers (int64); got {got}")
    if ids.ndim != 2 or not ids.numel():
        cure = "add a first dimension with input_ids[None]" if ids.ndim == 1 and ids.numel() else "leave it out"
        raise ConfigError(
            f"{where}: input_ids takes the shape (texts, tokens), at least one of each; got {tuple(ids.shape)}; {cure}"
        )


def _check_mask(inputs: dict, where: str) -> None:
    mask, shape = inputs.get("attention_mask"), tuple(inputs["input_ids"].shape)
    if mask is None:
        return
    if not torch.is_tensor(mask) or tuple(mask.shape) != shape:
        got = f"shape {tuple(mask.shape)}" if torch.is_tensor(mask) else _told(mask)
        raise ConfigError(
            f"{where}: attention_mask takes the shape of input_ids, {shape}: 1 for a token, 0 for padding; got {got}"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ConfigError(f"{where}: attention_mask takes 1 for a token and 0 for padding; it holds other numbers")


def _told(value: Any) -> str:
    """A value in few words."""
    if value is None:
        return "None"
    return (
        f"{value!r:.40} ({type(value).__name__})"
        if isinstance(value, str | int | float)
        else (f"a {type(value).__name__}")
    )
