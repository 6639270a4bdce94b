"""A decoder from a folder that this project wrote: an export for OpenVINO, a GGUF, or an optimised model."""

from pathlib import Path
from typing import Any

import transformers

from icd_lib.decoding import DECODERS
from icd_lib.decoding.base import Decoder
from icd_lib.decoding.openvino import OpenVinoDecoder
from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.models.checkpoint.optimized import RECORD, load_optimized
from icd_lib.optional import load_optional
from icd_lib.paths import user_path
from icd_lib.storage.json_text import read_text


def open_folder(folder: Path | str, *, threads: int | None = None) -> tuple[Decoder, Any]:
    """The decoder and its tokenizer; None for a folder that has none.

    Raises `ArtifactError` for a folder with nothing to generate with, `ResourceError` where its runtime is missing.
    """
    folder = user_path(folder)
    record = folder / RECORD
    if not record.is_file():
        raise ArtifactError(f"{folder} holds no {RECORD}; write a decoder there with icd.export or save_optimized")
    said = read_text(record)
    export = said.get("export", {})
    try:
        words = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        words = None
    if export.get("runtime") == "openvino":
        return _openvino(folder, export, threads), words
    if export.get("runtime") == "gguf":
        return DECODERS["llamacpp"].prepare(None, threads=threads, file=folder / "model.gguf"), words
    if "architecture" not in said:
        raise ArtifactError(f"{folder} holds an export for {export.get('runtime')!r}, which does not generate")
    return DECODERS["eager"].prepare(load_optimized(folder)), words


def _openvino(folder: Path, export: dict, threads: int | None) -> Decoder:
    rows = [row for row in DECODERS.values() if row.engine == "openvino" and row.precision == export.get("precision")]
    if "beam_idx" not in export.get("inputs", ()) or not rows:
        raise ArtifactError(f"{folder} holds an encoder for OpenVINO, which does not generate; export a decoder")
    openvino = load_optional("openvino", rows[0].extra)
    graph = openvino.Core().read_model(folder / "openvino_model.xml")
    decoder = OpenVinoDecoder(rows[0].open(graph, threads).create_infer_request())
    decoder.positions = read_text(folder / "config.json").get("max_position_embeddings")
    return decoder


def stop_tokens(folder: Path | str, tokenizer: Any) -> tuple[int, ...]:
    """Ids after which a text has ended: those of generation_config.json, and the tokenizer's own."""
    path = user_path(folder) / "generation_config.json"
    said = read_text(path).get("eos_token_id") if path.is_file() else None
    listed = said if isinstance(said, list) else [said]
    found = {token for token in (*listed, getattr(tokenizer, "eos_token_id", None)) if token is not None}
    return tuple(sorted(found))


def check_chat(tokenizer: Any) -> None:
    """Raise `ConfigError` for what cannot be talked to."""
    if tokenizer is None:
        raise ConfigError("the folder has no tokenizer, so it reads no text; export the model with its tokenizer")
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "the tokenizer has no chat template, so it is not known how turns are written; take a model that was "
            "trained on chats, or set tokenizer.chat_template"
        )
