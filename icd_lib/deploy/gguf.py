"""A decoder as a GGUF file: llama.cpp's format, in blocks that hold what the model's weights are.

Names of tensors and keys are the package gguf's; queries and keys of the architecture "llama" have their rows in
llama.cpp's order, the two halves of a rotary pair beside each other, as llama.cpp's own converter writes them. Only
architectures that Transformers reads back are written, so that a file can be compared with its model.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from icd_lib.decoding.base import check_decoder
from icd_lib.decoding.grouped import Grouped, grouped_weights
from icd_lib.deploy.gguf_tokenizer import tokenizer_fields
from icd_lib.errors import ConfigError, TransformError
from icd_lib.models.cache.shape import decoder_layers, windows_of
from icd_lib.models.checkpoint.gguf import EXTRA
from icd_lib.models.checkpoint.gguf_rope import FREQS, llama3_factors, wavelengths
from icd_lib.models.checkpoint.uniform import to_uniform
from icd_lib.models.families.llama.adapter import find_decoder
from icd_lib.models.quantized import as_float, is_quantized, quantized_linears
from icd_lib.optional import load_optional
from icd_lib.version import VERSION

TYPES = ("f32", "f16", "q8_0", "q4_0", "q4_1")
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
BLOCK = 32  # columns of a block in q8_0, q4_0 and q4_1
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7}  # llama_ftype of llama.h
_ROTATED = ("q_proj", "k_proj")


@dataclass(frozen=True, eq=False)
class GgufFile:
    """path; types: block type → tensors that have it; weights: what the file stands for, by names of the model."""

    path: Path
    types: dict[str, int]
    weights: dict[str, torch.Tensor] = field(repr=False)


def write_gguf(
    model: nn.Module,
    tokenizer,
    path: Path,
    *,
    kind: str = "f16",
    source: Path | None = None,
    grouped: Mapping[str, Grouped] | None = None,
) -> GgufFile:
    """Write `model` to `path`, which appears whole or not at all.

    tokenizer  whose tokens go into the file; None: none do, and the file decodes token ids
    kind       one of `TYPES`: how matrices are stored. Embedding and head are q8_0 where kind is of 4 bits; rows that
               are no multiple of 32 are f16, as llama.cpp's quantizer does; vectors are f32
    source     a GGUF file whose tokenizer is copied, key by key, instead of the tokenizer's own
    grouped    name of a weight → its codes (default: those of `icd_lib.models.grouped`), stored as exactly as 16-bit
               scales are: 4 bits as q4_0 where every zero is 8 and else as q4_1, 8 bits around 128 as q8_0;
               an embedding or head in 8 bits with zeros is stored as one without codes

    A model of uneven widths is padded to stock shapes first, the same function. Raises `ConfigError` for what the
    format does not have (kind, model, tokenizer), `TransformError` for groups that are no multiple of 32,
    `ResourceError` without the package gguf.
    """
    gguf = load_optional("gguf", EXTRA)
    check_decoder(model)
    if kind not in TYPES:
        raise ConfigError(f"GGUF weights are one of {', '.join(TYPES)}, not {kind!r}")
    if rounded := next(iter(quantized_linears(model)), None):
        raise TransformError(f"{rounded} rounds its inputs to 8 bits; GGUF holds weights alone")
    name = ARCHITECTURES.get(getattr(model.config, "model_type", ""))
    if name is None or find_decoder(model) is None:
        raise ConfigError(
            f"{type(model).__name__} is written to no GGUF file; models of type {', '.join(ARCHITECTURES)} are: export "
            "it with runtime='eager'"
        )
    check_positions(model)
    grouped = grouped_weights(model) if grouped is None else dict(grouped)
    grouped = {key: one for key, one in grouped.items() if not (key in TABLES and _has_zeros(one))}
    for key, one in grouped.items():
        check_blocks(key, one)
    stock = _stock(model, grouped)
    # A copied tokenizer says what its own file says; read before anything is written.
    words = tokenizer_fields(tokenizer, stock.config.vocab_size, source)
    partial = path.with_name(path.name + ".partial")
    writer = gguf.GGUFWriter(partial, name)
    try:
        _add_facts(writer, stock, kind)
        for key, value, type_, sub in words:
            writer.add_key_value(key, value, type_, sub)
        types, weights = _add_tensors(gguf, writer, name, stock, kind, grouped)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    finally:
        writer.close()
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
    return GgufFile(path, types, weights)


def check_blocks(name: str, grouped: Grouped) -> None:
    """Raise `TransformError` for codes that no block type holds."""
    if grouped.group % BLOCK:
        raise TransformError(
            f"{name} has groups of {grouped.group} columns and GGUF's blocks have {BLOCK}; quantise in groups of a "
            f"multiple of {BLOCK}, or export for openvino"
        )
    if _has_zeros(grouped):
        raise TransformError(
            f"{name} has 8-bit codes with zeros of their own and GGUF's q8_0 has none; quantise symmetrically"
        )


def _has_zeros(grouped: Grouped) -> bool:
    """Whether codes of 8 bits have zeros of their own, which q8_0 has not."""
    return grouped.bits == 8 and not bool((grouped.zeros == 128).all())


def _stock(model: nn.Module, grouped: Mapping[str, Grouped]) -> nn.Module:
    """A model of stock shapes that computes the same."""
    layers, _ = decoder_layers(model)
    widths = {layer.mlp.down_proj.in_features for layer in layers}
    heads = {layer.self_attn.k_proj.out_features for layer in layers}
    if grouped and (len(widths) > 1 or len(heads) > 1):
        raise TransformError(
            f"the layers have {len(widths)} FFN widths and {len(heads)} numbers of KV heads; llama.cpp takes one each, "
            "and codes are not padded: export for openvino"
        )
    return to_uniform(as_float(model) if is_quantized(model) else model)


def _add_facts(writer, model: nn.Module, kind: str) -> None:
    """Sizes and constants, by the package's methods."""
    config, size = model.config, decoder_layers(model)[0][0].self_attn.head_dim
    writer.add_type("model")
    writer.add_name(str(getattr(config, "name_or_path", "") or type(model).__name__).rpartition("/")[2])
    writer.add_string("general.source.converter", f"icd {VERSION}")
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(2)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def check_positions(model: nn.Module) -> None:
    """Raise `ConfigError` for positions that a file has no keys for here: windows, and other rotary embeddings."""
    rope = model.config.rope_parameters
    if rope.get("rope_type", "default") not in ("default", "llama3"):
        raise ConfigError(f"rotary embeddings of type {rope['rope_type']} are not written to GGUF; export for eager")
    if windows := windows_of(model):
        raise ConfigError(
            f"layers with a sliding window of {windows[0]} tokens are not written to GGUF; export for eager"
        )


def _add_tensors(
    gguf, writer, name: str, model: nn.Module, kind: str, grouped: Mapping[str, Grouped]
) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """Add every parameter; how many are of each type, and the values that the file stands for."""
    layers, _ = decoder_layers(model)
    size = layers[0].self_attn.head_dim
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[name.upper()], len(layers))
    types: dict[str, int] = {}
    weights: dict[str, torch.Tensor] = {}
    head = model.get_output_embeddings()
    tables = {id(model.get_input_embeddings().weight), id(head.weight)}
    for key, parameter in model.named_parameters():  # tied ones come once, under their first name
        value = parameter.detach().float().numpy()
        path = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if path is None:
            raise ConfigError(f"GGUF files of {name} have no tensor for {key}; export for eager")
        rotated = name == "llama" and key.split(".")[-2] in _ROTATED
        order = _interleaved(value.shape[0], size) if rotated else None
        if key in grouped:
            stored, type_ = _blocks(gguf, grouped[key])
        else:
            type_ = _type_of(gguf, value.shape, kind, is_table=id(parameter) in tables)
            stored = gguf.quants.quantize(np.ascontiguousarray(value), type_)
        meant = gguf.quants.dequantize(stored, type_).reshape(value.shape)
        weights[key] = torch.from_numpy(meant.copy())
        stored = np.ascontiguousarray(stored if order is None else stored[order])
        writer.add_tensor(path, stored, raw_dtype=type_)
        types[type_.name] = types.get(type_.name, 0) + 1
    rope = model.config.rope_parameters
    if rope.get("rope_type") == "llama3":
        numbers = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        slower = llama3_factors(wavelengths(rope["rope_theta"], size), *(rope[name] for name in numbers))
        writer.add_tensor(FREQS, slower.astype(np.float32))
    return types, weights


def _interleaved(rows: int, size: int) -> np.ndarray:
    """Rows in llama.cpp's order, as a gather: of every head, dim i beside dim i + size / 2.

    >>> _interleaved(8, 4).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return np.arange(rows).reshape(-1, 2, size // 2).swapaxes(1, 2).reshape(-1)


def _type_of(gguf, shape: tuple[int, ...], kind: str, *, is_table: bool):
    """The block type of a tensor that has no codes of its own."""
    if len(shape) == 1 or kind == "f32":
        chosen = "F32"
    elif kind == "f16" or shape[1] % BLOCK:
        chosen = "F16"
    else:
        chosen = "Q8_0" if is_table else kind.upper()
    return gguf.GGMLQuantizationType[chosen]


def _blocks(gguf, grouped: Grouped):
    """The bytes of a weight's blocks, uint8 (rows, bytes), and their type."""
    rows, columns = grouped.codes.shape
    repeats = grouped.group // BLOCK
    codes = grouped.codes.reshape(rows, columns // BLOCK, BLOCK)
    scales = np.repeat(grouped.scales, repeats, axis=1)[..., None]
    zeros = np.repeat(grouped.zeros, repeats, axis=1)[..., None]
    half = scales.astype(np.float16).view(np.uint8)
    if grouped.bits == 8:
        values = (codes.astype(np.int16) - 128).astype(np.int8).view(np.uint8)
        return np.concatenate([half, values], axis=-1).reshape(rows, -1), gguf.GGMLQuantizationType.Q8_0
    packed = codes[..., : BLOCK // 2] | codes[..., BLOCK // 2 :] << 4
    if (zeros == 8).all():
        return np.concatenate([half, packed], axis=-1).reshape(rows, -1), gguf.GGMLQuantizationType.Q4_0
    least = (-zeros * scales).astype(np.float16).view(np.uint8)
    return np.concatenate([half, least, packed], axis=-1).reshape(rows, -1), gguf.GGMLQuantizationType.Q4_1
