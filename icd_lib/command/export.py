"""`icd export`: a model as a folder for a runtime, from its name alone."""

from pathlib import Path

import torch

from icd_lib.command.texts import sample_texts
from icd_lib.data.batches import encode, token_batches
from icd_lib.deploy.card import Card
from icd_lib.deploy.decoder import check_decoder_target
from icd_lib.deploy.export import export
from icd_lib.deploy.place import check_place
from icd_lib.deploy.record import check_export
from icd_lib.deploy.sentence import read_pooling
from icd_lib.deploy.target import find_target
from icd_lib.errors import ConfigError
from icd_lib.models.checkpoint.loading import open_model
from icd_lib.models.checkpoint.optimized import RECORD
from icd_lib.models.checkpoint.source import find_checkpoint
from icd_lib.models.families import FAMILIES
from icd_lib.models.quantized import has_eight_bits
from icd_lib.paths import user_path
from icd_lib.runtimes import REFERENCE
from icd_lib.storage.json_text import read_text

TEXTS, TOKENS, TOKENS_PER_BATCH = 64, 128, 1024  # that int8 is calibrated on
LEAST_TEXTS = 16
NEEDS_TEXT = "int8 is calibrated on text of yours, unless the model is quantised already: pass --calibrate FILE"


def export_model(
    name: str,
    out: str,
    *,
    runtime: str,
    precision: str,
    calibrate: str | None = None,
    field: str | None = None,
    pooling: str | None = None,
    max_length: int | None = None,
    force: bool = False,
) -> dict:
    """Export the model `name` (a folder, a hub id, an embedded model) to `out`; what the record of the folder says.

    calibrate: a file of text for int8 of an encoder that is not quantised yet; a decoder's weights need none.
    pooling: default as the model's own folder says, else the mean of unit length.
    Raises `IcdError` on bad input, before the model is loaded where that can be known.
    """
    ours = (user_path(name) / RECORD).is_file()
    checkpoint = None if ours else find_checkpoint(name)
    generates = runtime != REFERENCE and _generates(user_path(name) if checkpoint is None else checkpoint.path)
    (check_decoder_target if generates else find_target)(runtime, precision)
    check_place(out, overwrite=force)
    uncalibrated = precision == "int8" and calibrate is None and not generates
    if uncalibrated and not ours:
        raise ConfigError(NEEDS_TEXT)
    texts = [] if calibrate is None else _texts(calibrate, field)
    model, tokenizer, label = open_model(name)
    if uncalibrated and not has_eight_bits(model):
        raise ConfigError(NEEDS_TEXT)
    if tokenizer is None:
        raise ConfigError(
            f"{name} has no tokenizer beside it, so nothing can be compared; write one with save_pretrained"
        )
    read = read_pooling(user_path(name) if checkpoint is None else checkpoint.path)
    command = f"icd export {label} --runtime {runtime} --precision {precision} --out {Path(out).name}"
    source = label if checkpoint is None else f"{label}, sha256 {checkpoint.sha256[:12]}"
    export(
        model,
        tokenizer,
        out,
        runtime=runtime,
        precision=precision,
        calibration=_batches(tokenizer, texts) if texts else None,
        pooling=pooling or read.mode,
        normalize=read.normalize,
        max_length=max_length or read.max_length,
        card=Card(source=source, licence=checkpoint.licence if checkpoint else None, again=command),
        overwrite=force,
    )
    return check_export(out)


def _generates(folder: Path | None) -> bool:
    """Whether a folder's config.json says that its model is a decoder, which is exported with its cache."""
    config = read_text(folder / "config.json") if folder is not None else {}
    classes = config.get("architectures") or [""]
    return config.get("model_type") in FAMILIES["llama"].model_types and str(classes[0]).endswith("ForCausalLM")


def _texts(calibrate: str, field: str | None) -> list[str]:
    """The texts that int8 is calibrated on; `ConfigError` where they are too few to tell any range."""
    texts = sample_texts(calibrate, TEXTS, 0, field)
    if len(texts) < LEAST_TEXTS:
        raise ConfigError(
            f"{calibrate} holds {len(texts)} different texts; the ranges of int8 take {LEAST_TEXTS} or more"
        )
    return texts


def _batches(tokenizer, texts: list[str]) -> list[dict[str, torch.Tensor]]:
    sequences = encode(tokenizer, texts, TOKENS)
    return [{"input_ids": ids, "attention_mask": mask} for _, ids, mask in token_batches(sequences, TOKENS_PER_BATCH)]
