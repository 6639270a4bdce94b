"""`icd.export`: write a model as a folder that the users of a runtime load with the runtime's own tools."""

import copy
import importlib.metadata
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from icd_lib.axes.kinds import KINDS
from icd_lib.data.batches import encode, token_batches
from icd_lib.deploy.card import Card, card_text
from icd_lib.deploy.decoder import export_decoder, is_decoder
from icd_lib.deploy.place import check_place, new_folder
from icd_lib.deploy.record import write_record
from icd_lib.deploy.sentence import Pooling, write_pooling
from icd_lib.deploy.target import check_model, find_target, users_of
from icd_lib.deploy.verify import TEXTS, check_same, compare, verify_optimum, verify_plain, verify_sentences
from icd_lib.errors import ArtifactError, ConfigError, TransformError
from icd_lib.models.checkpoint.optimized import RECORD, save_optimized
from icd_lib.models.export import as_arrays, as_tensors, export_onnx, main_output
from icd_lib.models.families import family_of
from icd_lib.models.modes import evaluating
from icd_lib.models.quantized import as_float, has_eight_bits
from icd_lib.optional import brief
from icd_lib.runtimes import REFERENCE
from icd_lib.runtimes.base import Runtime
from icd_lib.runtimes.emulation import emulated
from icd_lib.runtimes.onnx_based import OnnxBased
from icd_lib.storage.atomic import atomic_write
from icd_lib.storage.json_text import read_text
from icd_lib.version import VERSION

EXAMPLE_TOKENS = 32
# Least cosine of a token's state to PyTorch's in fp32, of a runtime that rounds. The embedded MiniLM, calibrated on 64
# texts of its domains, has 0.99996 in OpenVINO's bf16, 0.97 in NNCF's int8 and 0.85 in ONNX Runtime's own.
DOUBTFUL_COSINE, RUINED_COSINE = 0.9, 0.5


@dataclass(frozen=True)
class Source:
    """What is exported: the model in evaluation mode, its tokenizer, how texts are read (None: they are not).

    given: inputs that the export is compared on; output: the name of the main output; states: it in PyTorch, float32
    """

    model: nn.Module
    tokenizer: Any
    pooling: Pooling | None
    given: dict[str, torch.Tensor]
    output: str
    states: np.ndarray


@dataclass(frozen=True)
class Written:
    """What lies in the folder now. loader: of `icd_lib.deploy.fresh`; is_plain: whether the runtime's users can load it

    expected: what the exported model gives for the inputs; embedded: its embeddings of `TEXTS`, None without pooling
    """

    loader: str
    is_plain: bool
    hints: dict[str, str]
    expected: np.ndarray
    embedded: np.ndarray | None


def export(
    model: nn.Module,
    tokenizer,
    folder,
    *,
    runtime: str = "openvino",
    precision: str = "fp32",
    calibration: Sequence[dict] | None = None,
    example: dict | None = None,
    pooling: str | None = "mean",
    normalize: bool = True,
    max_length: int | None = None,
    card: Card | None = None,
    overwrite: bool = False,
    source: Path | str | None = None,
) -> Path:
    """Write `model` for `runtime`, a name of `icd list`, to `folder`, checked; returns the folder.

    tokenizer    saved beside it; None where an example is given, and then nothing reads texts
    precision    what the runtime computes in: fp32, bf16 or int8, as far as the runtime has it
    calibration  the model's input dicts for int8: some batches of real text; a quantised model needs none
    example      input dict (B, L) that the export is compared with the model on; default: a few sentences
    pooling      mean, cls or max over the tokens' states, `normalize` to unit length, at most `max_length` tokens of a
                 text: what sentence-transformers is told. None, or a model with a head or of language: nothing
    card         what was measured of the model, for its README.md
    overwrite    replace an earlier export there
    source       for a decoder as "gguf": the GGUF file whose tokenizer is copied

    A decoder is exported with its cache, for "openvino" (int4 too) or as "gguf" (f32, f16, q8_0, q4_0 or q4_1); nothing
    is calibrated then, and no text is pooled.

    The graph is the one that the ladder measures in this runtime. A process of its own loads it before the folder is
    put in its place, and has to give the same outputs; the folder appears whole or not at all. Raises `ConfigError` on
    bad arguments, `ResourceError` where a package is missing or the runtime refuses the model, `ArtifactError` when the
    folder must not be replaced, cannot be written, or what was written says something else than the model. Of a runtime
    that rounds that is a least cosine below 0.5; below 0.9 it is a warning, which the card repeats.
    """
    if runtime != REFERENCE and is_decoder(model):
        return export_decoder(
            model,
            tokenizer,
            folder,
            runtime=runtime,
            precision=precision,
            example=example,
            source=source,
            card=card,
            overwrite=overwrite,
        )
    row = find_target(runtime, precision)
    check_model(model, row)
    users = users_of(row)
    place = check_place(folder, overwrite=overwrite)
    if precision == "int8" and not calibration and not has_eight_bits(model):
        raise ConfigError("precision int8 needs calibration=[input dict, ...]: some batches of real text")
    if tokenizer is None and example is None:
        raise ConfigError("without a tokenizer an example is needed: pass example={'input_ids': ...}, of shape (B, L)")
    read = None if pooling is None else Pooling(pooling, normalize, max_length)
    note = emulated(precision)
    if note:
        warnings.warn(note, stacklevel=2)
    if has_eight_bits(model) and row.from_onnx and precision != "int8":
        model = as_float(model)
    with evaluating(model):
        source = _source(model, tokenizer, example, read)
        with new_folder(place) as partial:
            if isinstance(row, OnnxBased):
                written = _write_graph(row, source, calibration, partial)
            else:
                written = _write_eager(source, partial)
            facts = _facts(row, source, written, note)
            if source.pooling:
                arguments = {users.argument: written.hints} if users.argument else {}
                write_pooling(partial, source.pooling, source.states.shape[-1], arguments)
            facts |= _verified(partial, row, source, written)
            atomic_write(partial / "README.md", card_text(card or Card(), facts, users, place.name))
            write_record(partial, facts)
    return place


def _source(model: nn.Module, tokenizer, example: dict | None, pooling: Pooling | None) -> Source:
    given = as_tensors(_sentences(tokenizer) if example is None else example)
    with torch.no_grad():
        output, tensor = main_output(model(**given))
    family = family_of(model)
    is_encoder = output == "last_hidden_state" and (family is None or family.judge == "encoder")
    read = pooling.within(tokenizer, model.config) if pooling and is_encoder and tokenizer is not None else None
    return Source(model, tokenizer, read, given, output, tensor.float().cpu().numpy())


def _sentences(tokenizer) -> dict[str, torch.Tensor]:
    """`TEXTS` as one batch."""
    sequences = encode(tokenizer, TEXTS, EXAMPLE_TOKENS)
    _, input_ids, mask = next(token_batches(sequences, len(TEXTS) * EXAMPLE_TOKENS))
    return {"input_ids": input_ids, "attention_mask": mask}


def _texts(source: Source, pooling: Pooling) -> dict[str, np.ndarray]:
    """`TEXTS` as sentence-transformers gives them to the model, of what the model takes."""
    read = source.tokenizer(
        list(TEXTS), padding=True, truncation=True, max_length=pooling.max_length, return_tensors="np"
    )
    return {name: np.asarray(read[name]) for name in source.given if name in read}


def _write_graph(row: OnnxBased, source: Source, calibration: Sequence[dict] | None, folder: Path) -> Written:
    """The graph in the runtime's own files, with config and tokenizer."""
    with tempfile.TemporaryDirectory() as scratch:
        path = export_onnx(source.model, source.given, Path(scratch) / "model.onnx")
        with row.refusals(source.model):
            graph = row.convert(path, calibration)
            prepared = row.open(graph, torch.get_num_threads())
        with closing(prepared):
            expected, embedded = prepared.run(source.given), None
            if source.pooling:
                texts = _texts(source, source.pooling)
                embedded = source.pooling(prepared.run(texts), texts["attention_mask"])
        try:
            row.save(graph, folder)
        except RuntimeError as error:  # a native library's word for a file that cannot be written
            raise ArtifactError(
                f"{row.engine} cannot write its files ({brief(error)}); check the free space"
            ) from error
    config = copy.deepcopy(source.model.config)
    config.architectures = [type(source.model).__name__]
    config.save_pretrained(folder)
    if source.tokenizer is not None:
        source.tokenizer.save_pretrained(folder)
    return Written(row.engine, True, dict(row.hints), expected, embedded)


def _write_eager(source: Source, folder: Path) -> Written:
    """An optimised model, padded to stock shapes where its family has such, so that plain transformers loads it."""
    family = family_of(source.model)
    try:
        uniform = family is not None and family.make_uniform is not None
        save_optimized(source.model, source.tokenizer, folder, uniform=uniform)
    except TransformError:
        if not uniform:
            raise
        save_optimized(source.model, source.tokenizer, folder)
    record = read_text(folder / RECORD)
    is_plain = record["uniform"] or not (record["widths"] or record["attributes"])
    embedded = None
    if source.pooling:
        texts = {name: torch.from_numpy(value) for name, value in _texts(source, source.pooling).items()}
        with torch.no_grad():
            states = main_output(source.model(**texts))[1].float().numpy()
        embedded = source.pooling(states, texts["attention_mask"].numpy())
    return Written("transformers" if is_plain else "icd", is_plain, {}, source.states, embedded)


def _facts(row: Runtime, source: Source, written: Written, note: str | None) -> dict:
    family, pooling = family_of(source.model), source.pooling
    axes = family.adapter(source.model).axes() if family else []
    return {
        "runtime": row.engine,
        "precision": row.precision,
        "label": row.label,
        "hints": written.hints,
        "architecture": type(source.model).__name__,
        "inputs": list(source.given),
        "output": source.output,
        "pooling": pooling.mode if pooling else None,
        "normalize": pooling.normalize if pooling else None,
        "max_length": pooling.max_length if pooling else None,
        "loads_plain": written.is_plain,
        "widths": {axis.name: axis.size for axis in axes if axis.kind in KINDS},
        "emulated": note,
        "versions": {"icd": VERSION} | _versions(row),
    }


def _versions(row: Runtime) -> dict[str, str]:
    found = {}
    for name in dict.fromkeys((*row.needs, *users_of(row).packages)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _verified(folder: Path, row: Runtime, source: Source, written: Written) -> dict:
    """What was seen of the folder in processes of their own, and how far the export is from PyTorch in fp32."""
    options = {"threads": torch.get_num_threads(), "hints": written.hints}
    given = as_arrays(source.given)
    away = compare(written.expected, source.states, given["attention_mask"])
    doubt = None
    if row.rounds:
        doubt = _doubt(row, away["min_cosine"])
    elif all(p.dtype == torch.float32 for p in source.model.parameters()):
        check_same(row.label, away, source.states)
    plain = verify_plain(folder, written.loader, given, written.expected, options)
    if written.embedded is None:
        sentences = {"status": "not_measured", "reason": "the model gives no embedding of a text, or has no tokenizer"}
    elif not written.is_plain:
        sentences = {"status": "not_measured", "reason": "its layers have widths that no config of transformers has"}
    else:
        sentences = verify_sentences(folder, users_of(row), written.embedded, options)
    verified = {written.loader: plain, "sentence-transformers": sentences}
    if (users := users_of(row)).prefix and source.output == "last_hidden_state":
        verified[users.module] = verify_optimum(folder, users, given, written.expected, options, row.precision)
    rows, tokens = given["input_ids"].shape
    return {
        "verified": verified,
        "against_eager": {**away, "what": f"{rows} x {tokens} tokens"},
        "doubt": doubt,
    }


def _doubt(row: Runtime, cosine: float) -> str | None:
    """What is to be said of a runtime that rounds so far away from the model; `ArtifactError` where it is another one.

    A cosine that is no number counts as the least.
    """
    if cosine >= DOUBTFUL_COSINE:
        return None
    told = f"in {row.label} the least cosine of a token's state to the model's in PyTorch, fp32, is {cosine:.3f}"
    if not cosine >= RUINED_COSINE:
        raise ArtifactError(
            f"{told}, below {RUINED_COSINE}: it computes another function; export in another runtime or precision, or "
            "calibrate on more text"
        )
    told += f", below {DOUBTFUL_COSINE}: judge its quality before you use it"
    warnings.warn(told, stacklevel=4)
    return told
