"""`icd.export` of a decoder: a folder with its cache in the graph for OpenVINO, or a GGUF file for llama.cpp."""

import copy
import importlib.metadata
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from icd_lib.axes.kinds import KINDS
from icd_lib.decoding import DECODERS, REFERENCE
from icd_lib.decoding.base import Decoder
from icd_lib.decoding.openvino import OpenVino, OpenVinoDecoder
from icd_lib.decoding.prompt import pad_left, read_prompt
from icd_lib.deploy.card import Card, card_text
from icd_lib.deploy.gguf import TYPES, write_gguf
from icd_lib.deploy.place import check_place, new_folder
from icd_lib.deploy.record import write_record
from icd_lib.deploy.verify import TEXTS, check_same, compare, run_fresh
from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.models.checkpoint.uniform import to_uniform
from icd_lib.models.families import family_of
from icd_lib.models.families.llama.adapter import find_decoder
from icd_lib.models.modes import evaluating
from icd_lib.models.quantized import as_float, is_quantized
from icd_lib.optional import brief, load_optional
from icd_lib.runtimes.base import Users
from icd_lib.runtimes.emulation import emulated
from icd_lib.runtimes.ir import save_ir
from icd_lib.storage.atomic import atomic_write
from icd_lib.version import VERSION

TOKENS = 32  # that are generated greedily and compared
GGUF, GGUF_FILE = "gguf", "model.gguf"
_GGUF_NAMES = {"fp32": "f32", "int8": "q8_0"}
_NO_WORDS = (
    "openvino-tokenizers is not installed, so the folder reads no text in LLMPipeline; pip install openvino-tokenizers"
)

_OPENVINO = Users(
    backend="openvino",
    module="optimum.intel",
    prefix=None,
    argument=None,
    code="from optimum.intel import OVModelForCausalLM\n"
    'model = OVModelForCausalLM.from_pretrained("{folder}", ov_config={hints})\n\n'
    "import openvino_genai\n"
    'pipe = openvino_genai.LLMPipeline("{folder}", "CPU", **{hints})\n'
    'pipe.generate("Why is the sky blue?", max_new_tokens=64)',
    note="OpenVINO keeps no precision in its files, and left to itself computes in bf16 and keeps the cache in 8 bits.",
    packages=("openvino", "openvino-tokenizers", "nncf", "torch", "transformers"),
)
_LLAMACPP = Users(
    backend=GGUF,
    module="llama_cpp",
    prefix=None,
    argument=None,
    code="from llama_cpp import Llama\n"
    f'model = Llama("{{folder}}/{GGUF_FILE}", n_ctx=4096)\n'
    'model("Why is the sky blue?", max_tokens=64)',
    note="",
    packages=("gguf", "torch", "transformers"),
)


def is_decoder(model: nn.Module) -> bool:
    """Whether a model generates with a cache, and so is exported with it."""
    return find_decoder(model) is not None and hasattr(model, "lm_head")


def is_whole(model: nn.Module) -> bool:
    """Whether all its numbers are float32, but for those that are codes."""
    return all(p.dtype == torch.float32 for p in model.parameters() if p.is_floating_point())


@dataclass(frozen=True, eq=False)
class _Text:
    """What exports are compared on: ids and mask (B, L), tokens (B, N) that follow, logits (B, N, V) of eager fp32.

    tokens[:, t] is what eager says after tokens[:, :t], and logits[:, t] is why.
    """

    ids: np.ndarray
    mask: np.ndarray
    tokens: np.ndarray
    logits: np.ndarray

    def given(self) -> dict[str, np.ndarray]:
        """As loaders take it; the last token is only compared."""
        return {"input_ids": self.ids, "attention_mask": self.mask, "tokens": self.tokens[:, :-1]}


def export_decoder(
    model: nn.Module,
    tokenizer: Any,
    folder: Path | str,
    *,
    runtime: str,
    precision: str,
    example: dict | None = None,
    source: Path | str | None = None,
    card: Card | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write a decoder for "openvino" (fp32, bf16, int8, int4) or "gguf" (f32, f16, q8_0, q4_0, q4_1); the folder.

    example  {"input_ids", "attention_mask"} of prompts, padded on the left; default: a few sentences
    source   for gguf: the GGUF file whose tokenizer is copied
    options  of the runtime's row: `group`, for int4

    Prompts and 32 greedy steps are compared with the model in eager fp32, then with what processes of their own give
    that load the folder with nothing but the runtime. Raises as `icd.export` does.
    """
    place = check_place(folder, overwrite=overwrite)
    if tokenizer is None and example is None:
        raise ConfigError("without a tokenizer an example is needed: pass example={'input_ids': ...}, of shape (B, L)")
    kind = check_decoder_target(runtime, precision)
    with evaluating(model):
        text = _read_text(model, tokenizer, example)
        with new_folder(place) as partial:
            if runtime == GGUF:
                facts, users = _write_gguf(model, tokenizer, partial, kind, text, source), _LLAMACPP
            else:
                facts, users = _write_openvino(model, tokenizer, partial, DECODERS[kind], text, options), _OPENVINO
            facts |= _common(model, users, precision)
            atomic_write(partial / "README.md", card_text(card or Card(), facts, users, place.name))
            write_record(partial, facts)
    return place


def check_decoder_target(runtime: str, precision: str) -> str:
    """The name of a row, or a type of GGUF; `ConfigError` with what there is, `ResourceError` without a package."""
    if runtime == GGUF:
        return _check_gguf(precision)
    rows = {row.precision: name for name, row in DECODERS.items() if isinstance(row, OpenVino)}
    if runtime != "openvino":
        raise ConfigError(
            f"a decoder is not exported for {runtime!r}; with its cache it is for openvino or gguf, as PyTorch loads "
            f"it for {REFERENCE}"
        )
    if precision not in rows:
        raise ConfigError(f"a decoder is not exported for openvino in {precision!r}; it takes one of {', '.join(rows)}")
    DECODERS[rows[precision]].check()
    return rows[precision]


def _check_gguf(precision: str) -> str:
    kind = _GGUF_NAMES.get(precision, precision)
    if kind not in TYPES:
        raise ConfigError(f"a GGUF file is not written in {precision!r}; it takes one of {', '.join(TYPES)}")
    load_optional("gguf", "'icd-lib[decoder]'")
    return kind


def _read_text(model: nn.Module, tokenizer: Any, example: dict | None) -> _Text:
    """The prompts, and what the model in eager fp32 goes on with."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if example is None:
        ids, mask = pad_left(_sentences(tokenizer, positions), tokenizer.pad_token_id or 0)
    else:
        ids = np.asarray(example["input_ids"], dtype=np.int64)
        mask = np.asarray(example.get("attention_mask", np.ones_like(ids)), dtype=np.int64)
    read_prompt(ids, mask, positions)
    steps = TOKENS if positions is None else min(TOKENS, positions - ids.shape[1])
    if steps < 1:
        raise ConfigError(f"the prompts fill all {positions} positions; give shorter ones, so that tokens can follow")
    whole = model if is_whole(model) else copy.deepcopy(model).float()
    with closing(DECODERS[REFERENCE].prepare(whole)) as eager:
        tokens, logits = _generate(eager, ids, mask, steps)
    return _Text(ids, mask, tokens, logits)


def _sentences(tokenizer: Any, positions: int | None) -> list[list[int]]:
    """Tokens of `TEXTS`, their beginnings where a model has few positions, so that tokens can follow."""
    found = [tokenizer(text)["input_ids"] for text in TEXTS]
    return found if positions is None else [ids[: max(positions - TOKENS, positions // 2)] for ids in found]


def _generate(
    decoder: Decoder, ids: np.ndarray, mask: np.ndarray, steps: int, given: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, steps) that the decoder says, and logits (B, steps, V); fed with `given` (B, steps) or its own."""
    found = [decoder.prefill(ids, mask)]
    for step in range(steps - 1):
        fed = found[-1].argmax(-1) if given is None else given[:, step]
        found.append(decoder.step(fed))
    logits = np.stack(found, axis=1)
    return logits.argmax(-1), logits


def _write_openvino(
    model: nn.Module, tokenizer: Any, folder: Path, row: OpenVino, text: _Text, options: Mapping[str, Any]
) -> dict:
    whole = model if is_whole(model) else copy.deepcopy(model).float()
    graph = row.graph(whole, **options)
    with closing(OpenVinoDecoder(row.open(graph, last=False).create_infer_request())) as decoder:
        said, expected = _generate(decoder, text.ids, text.mask, text.tokens.shape[1], text.tokens)
    label = row.label_of(model)
    facts = _compared(label, said, expected, text, exact=row.precision == "fp32")
    for key, value in row.hints.items():
        if key != "PERFORMANCE_HINT":
            graph.set_rt_info(value, ["runtime_options", key])
    try:
        save_ir(graph, folder / "openvino_model.xml")
        words = _write_words(tokenizer, folder)
    except RuntimeError as error:  # a native library's word for a file that cannot be written
        raise ArtifactError(f"openvino cannot write its files ({brief(error)}); check the free space") from error
    _write_config(model, tokenizer, folder)
    loaders = {"openvino": "decode_openvino"}
    options = {"threads": torch.get_num_threads(), "hints": row.hints}
    return facts | {
        "runtime": row.engine,
        "label": label,
        "hints": row.hints,
        "inputs": ["input_ids", "attention_mask", "position_ids", "beam_idx"],
        "emulated": emulated("bf16") if row.told == "bf16" else None,
        "tokenizer": words or "openvino_tokenizer.xml",
        "verified": _verified(loaders, folder, text, expected, options),
    }


def _write_words(tokenizer: Any, folder: Path) -> str | None:
    """OpenVINO's tokenizer and detokenizer, for LLMPipeline; why there are none, or None."""
    if tokenizer is None:
        return "no tokenizer was given"
    try:
        openvino_tokenizers = load_optional("openvino_tokenizers", "openvino-tokenizers")
    except ResourceError:
        return _NO_WORDS
    try:
        both = openvino_tokenizers.convert_tokenizer(tokenizer, with_detokenizer=True)
    except Exception as error:  # what a converter says of a tokenizer that it does not know is of many kinds
        return f"openvino-tokenizers cannot convert this tokenizer ({brief(error)})"
    for graph, name in zip(both, ("tokenizer", "detokenizer"), strict=True):
        load_optional("openvino").save_model(graph, folder / f"openvino_{name}.xml", compress_to_fp16=False)
    return None


def _write_config(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    generation = copy.deepcopy(getattr(model, "generation_config", None)) or transformers.GenerationConfig()
    if generation.eos_token_id is None:
        generation.eos_token_id = getattr(tokenizer, "eos_token_id", None)
    generation.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)


def _write_gguf(
    model: nn.Module, tokenizer: Any, folder: Path, kind: str, text: _Text, source: Path | str | None
) -> dict:
    file = write_gguf(model, tokenizer, folder / GGUF_FILE, kind=kind, source=None if source is None else Path(source))
    meant = _meant(model, file.weights)
    with closing(DECODERS[REFERENCE].prepare(meant)) as eager:
        said, expected = _generate(eager, text.ids, text.mask, text.tokens.shape[1], text.tokens)
    label = f"GGUF, {', '.join(f'{count} {name}' for name, count in sorted(file.types.items()))}"
    # Codes keep 16 bits of a scale and of a minimum, whatever the other tensors are.
    facts = _compared(label, said, expected, text, exact=set(file.types) == {"F32"})
    _write_config(meant, tokenizer, folder)
    options = {"threads": torch.get_num_threads(), "file": GGUF_FILE}
    verified = _verified({"transformers": "decode_gguf"}, folder, text, expected, options)
    return facts | {
        "runtime": GGUF,
        "label": label,
        "hints": {},
        "inputs": ["tokens"],
        "emulated": None,
        "types": file.types,
        "verified": verified | {"llama.cpp": _llamacpp(folder / GGUF_FILE, text, expected)},
    }


def _meant(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """A model in stock shapes with the values that a GGUF file stands for."""
    meant = to_uniform(as_float(model) if is_quantized(model) else model).float()
    with torch.no_grad():
        for name, parameter in meant.named_parameters():
            parameter.copy_(weights[name])
    return meant.eval()


def _llamacpp(file: Path, text: _Text, expected: np.ndarray) -> dict:
    """What llama.cpp gives for the file, where it is; it multiplies in blocks of 8 bits, so only tokens are judged."""
    row = DECODERS["llamacpp"]
    try:
        row.check()
    except ResourceError as error:
        return {"status": "not_measured", "reason": error.args[0]}
    context = text.ids.shape[1] + text.tokens.shape[1]
    with closing(row.prepare(None, file=file, texts=len(text.ids), context=context)) as decoder:
        _, logits = _generate(decoder, text.ids, text.mask, text.tokens.shape[1], text.tokens)
        version = decoder.told["version"]
    compared = compare(logits, expected)
    if compared["min_cosine"] < 0.99:
        raise ArtifactError(
            f"llama.cpp gives logits for the file whose least cosine with the model's is {compared['min_cosine']:.4f}; "
            "the file says something else than the model"
        )
    return {"status": "verified", **compared, "versions": {"llama-cpp-python": version}}


def _compared(label: str, said: np.ndarray, expected: np.ndarray, text: _Text, *, exact: bool) -> dict:
    """Against eager fp32; `ArtifactError` where an exact form gives other logits than rounding explains."""
    away = compare(expected, text.logits)
    if exact:
        check_same(label, away, text.logits)
    rows, tokens = text.ids.shape
    equal = float((said == text.tokens).mean())
    what = f"{rows} prompts of up to {tokens} tokens and {text.tokens.shape[1]} tokens after each"
    return {"against_eager": {**away, "what": what, "equal_tokens": equal}}


def _verified(
    loaders: Mapping[str, str],
    folder: Path,
    text: _Text,
    expected: np.ndarray,
    options: Mapping[str, Any],
) -> dict:
    """What processes of their own gave that loaded the folder; `ArtifactError` where it is something else."""
    found = {}
    for name, loader in loaders.items():
        one = run_fresh(loader, folder, text.given(), dict(options))
        compared = compare(one.output, expected)
        check_same(name, compared, expected)
        found[name] = {"status": "verified", **compared, **one.told}
    return found


def _common(model: nn.Module, users: Users, precision: str) -> dict:
    family = family_of(model)
    axes = family.adapter(model).axes() if family else []
    versions = {}
    for package in users.packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "precision": precision,
        "architecture": type(model).__name__,
        "output": "logits",
        "pooling": None,
        "normalize": None,
        "max_length": None,
        "loads_plain": False,
        "widths": {axis.name: axis.size for axis in axes if axis.kind in KINDS},
        "versions": {"icd": VERSION} | versions,
    }
