"""An optimised model on disk: stock config and safetensors, plus icd.json, which says what differs from stock.

`icd.json`: {"format": "icd/v1", "architecture", "options", "attributes": [[module, attribute, value], ...], "widths":
{parameter: shape, ...} that differ from stock, "ties": [[parameter, the same tensor, ...], ...], "uniform", "sha256" of
the weights, "config_sha256", "meta"}. Folders of earlier versions have no "ties": theirs follow the config.
"""

import copy
import json
import math
import shutil
import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from icd_lib.axes.vocab import install_token_map
from icd_lib.errors import ArtifactError, InternalError, TransformError
from icd_lib.models.checkpoint.config import MALFORMED, find_class
from icd_lib.models.checkpoint.files import hash_files
from icd_lib.models.checkpoint.prepare import prepare
from icd_lib.models.checkpoint.uniform import to_uniform
from icd_lib.models.families import family_of
from icd_lib.models.quantized import install_quantized, pack, unpack
from icd_lib.models.ties import check_ties, has_tied_embeddings, retie, ties_of
from icd_lib.paths import user_path
from icd_lib.storage.atomic import put_in_place
from icd_lib.storage.devices import back_on_cpu
from icd_lib.storage.json_text import read_text
from icd_lib.storage.tensor_file import usual_rights

FORMAT = "icd/v1"
MAX_SIZE, MAX_LABELS = 2**31, 2**20  # of any dimension; of classes, for each of which a name is made
MAX_BUFFER = 2**24  # elements of a buffer that is computed and not stored; position ids of any model fit
RECORD, WEIGHTS, CONFIG = "icd.json", "model.safetensors", "config.json"
_TOKEN_MAP = ".id_map"
_SHAPE_ATTRIBUTES = {"training", "in_features", "out_features", "num_embeddings", "embedding_dim"}
_REQUIRED = ("format", "architecture", "options", "attributes", "sha256", "config_sha256")


def save_optimized(model: nn.Module, tokenizer, folder, meta: dict | None = None, *, uniform: bool = False) -> Path:
    """Write `model` and its tokenizer to `folder`, which appears whole or not at all; returns the folder.

    `meta` is any JSON object kept in icd.json. `uniform` pads to stock shapes first (the same function), so that
    plain `AutoModel.from_pretrained` reads the folder. An earlier optimised model there is replaced; any other
    non-empty folder is refused. Raises `ArtifactError` when it cannot be written, `TransformError` for a class that
    Transformers does not have.
    """
    folder = user_path(folder)
    check_savable(model)
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; choose another folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise ArtifactError(f"{folder} is not empty and holds no optimised model; choose another folder")
    model = back_on_cpu(model)
    model = to_uniform(model) if uniform else model
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        _write(model, tokenizer, partial, meta or {}, uniform)
        _replace_folder(folder, partial)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"cannot write {folder} ({error}); check the free space and the rights") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def check_savable(model: nn.Module) -> None:
    """Raise `TransformError` for a model of a class that cannot be built again from its config."""
    if _is_known(model):
        return
    inside = [name for name, module in model.named_modules() if _is_known(module) and family_of(module) is not None]
    name = type(model).__qualname__
    cure = (
        f"pass model.{inside[0]} and put the result back: model.{inside[0]} = optimized.model"
        if inside
        else ("register the class with its family (docs/extend/family.md)")
    )
    raise TransformError(
        f"only models of a class in transformers can be saved and loaded, got {name}; nothing was changed: {cure}"
    )


def _is_known(module: nn.Module) -> bool:
    return find_class(type(module).__name__) is type(module)


def load_optimized(folder) -> nn.Module:
    """The model that `save_optimized` wrote, in eval mode; its tokenizer is beside it (`AutoTokenizer`).

    Raises `ArtifactError` when a file is missing, damaged, or not the one that was written, before any allocation.
    """
    folder = user_path(folder)
    record = _read_record(folder)
    try:
        return _build(folder, record)
    except MALFORMED as error:
        raise ArtifactError(
            f"{folder} does not hold a model that can be built ({type(error).__name__}: {_first_line(error)}); "
            "write it again with save_optimized"
        ) from error


def _build(folder: Path, record: dict) -> nn.Module:
    shapes = _read_shapes(folder / WEIGHTS)
    _check_sizes(read_text(folder / CONFIG), len(shapes))
    model = _stock_model(folder, record["architecture"], record["options"])
    install_quantized(model, shapes)
    for key in shapes:
        if key.endswith(_TOKEN_MAP):
            install_token_map(_module(model, key.removesuffix(_TOKEN_MAP)))
    _fit_shapes(model, shapes)
    for path, attribute, value in record["attributes"]:
        _set_attribute(model, path, attribute, value)
    _restore_buffers(model)
    _assign(model, unpack(model, load_file(folder / WEIGHTS)), record.get("ties"))
    return prepare(model.eval())


def _replace_folder(folder: Path, partial: Path) -> None:
    """Put `partial` in the place of `folder`; at no moment is the earlier one half removed, and it stays on failure."""
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    put_in_place(partial, folder, old)
    shutil.rmtree(old, ignore_errors=True)


def _check_sizes(config: dict, tensors: int) -> None:
    """Raise `ArtifactError` for sizes that no model has: to build it could take all memory, even without weights."""
    for key, value in config.items():
        counted = key.rpartition("_")[2] if key.startswith("num_") else ""
        most = {"layers": tensors, "labels": MAX_LABELS}.get(counted, MAX_SIZE)
        if isinstance(value, int) and value > most:
            raise ArtifactError(f"{CONFIG} has {key} = {value}, at most {most} fits these weights; copy it again")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")[:200]


def _write(model: nn.Module, tokenizer, folder: Path, meta: dict, uniform: bool) -> None:
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = next(model.parameters()).dtype
    if (tied := has_tied_embeddings(model)) is not None:
        config.tie_word_embeddings = tied
    config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    options = {"add_pooling_layer": False} if getattr(model, "pooler", True) is None else {}
    stock = _stock_model(folder, type(model).__name__, options)
    state = pack(model, _unshared_state(model, stock))
    with usual_rights(folder / WEIGHTS):
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    stock_shapes = {key: list(value.shape) for key, value in stock.state_dict().items()}
    record = {
        "format": FORMAT,
        "architecture": type(model).__name__,
        "options": options,
        "attributes": _changed_attributes(model, stock),
        "widths": {key: list(t.shape) for key, t in state.items() if list(t.shape) != stock_shapes.get(key)},
        "ties": ties_of(model),
        "uniform": uniform,
        "sha256": hash_files([folder / WEIGHTS]),
        "config_sha256": hash_files([folder / CONFIG]),
        "meta": meta,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _unshared_state(model: nn.Module, stock: nn.Module) -> dict[str, torch.Tensor]:
    """state_dict for safetensors, which refuses shared memory: what `stock` ties anyway once, other ties as copies."""
    state, written = {}, set()
    stock_groups = {name: names for names in ties_of(stock) for name in names}
    firsts = {name: names[0] for names in ties_of(model) for name in names[1:]}
    for key, tensor in model.state_dict().items():
        if key in firsts and firsts[key] in stock_groups.get(key, ()):
            continue
        state[key] = tensor.detach().clone() if tensor.data_ptr() in written else tensor.detach().contiguous()
        written.add(tensor.data_ptr())
    return state


def _changed_attributes(model: nn.Module, stock: nn.Module) -> list[list]:
    changed = []
    for path, module in stock.named_modules():
        ours = vars(model.get_submodule(path))
        for name, value in sorted(vars(module).items()):
            if name.startswith("_") or name in _SHAPE_ATTRIBUTES or not isinstance(value, int | float):
                continue
            if ours.get(name) != value:
                changed.append([path, name, ours.get(name)])
    return changed


def _read_record(folder: Path) -> dict:
    path = folder / RECORD
    try:
        record = read_text(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is missing or damaged ({error}); write it with save_optimized") from error
    missing = [key for key in _REQUIRED if not isinstance(record, dict) or key not in record]
    if missing and isinstance(record, dict) and isinstance(record.get("export"), dict):
        raise ArtifactError(
            f"{folder} holds an export for {record['export'].get('runtime')}, not a model that PyTorch loads; load it "
            "as its README.md says, or take the folder that it was made from"
        )
    if missing or record["format"] != FORMAT:
        found = missing and f"no {missing[0]!r}" or f"format {record['format']!r}"
        raise ArtifactError(f"{path} is not a record of format {FORMAT}: {found}; write it with save_optimized")
    for name, key in ((CONFIG, "config_sha256"), (WEIGHTS, "sha256")):
        try:
            found = hash_files([folder / name])
        except OSError as error:
            raise ArtifactError(f"{folder / name} cannot be read ({error}); copy the whole folder again") from error
        if found != record[key]:
            raise ArtifactError(
                f"{folder / name} has sha256 {found[:12]}..., {RECORD} says {str(record[key])[:12]}...; the file was "
                "truncated or changed after it was written: copy the folder again or rerun the optimisation"
            )
    return record


def _stock_model(folder: Path, architecture: str, options: dict) -> nn.Module:
    """The unpruned class of config.json on the meta device: shapes without memory."""
    model_class = find_class(str(architecture))
    if model_class is None:
        raise ArtifactError(f"{RECORD} names the architecture {architecture!r}, which transformers does not have")
    if not set(options) <= {"add_pooling_layer"}:
        raise ArtifactError(f"{RECORD} has the unknown options {sorted(options)}; write it with save_optimized")
    config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    if hasattr(config, "num_attention_heads"):
        config._attn_implementation = "sdpa"
    with torch.device("meta"):
        return model_class(config, **options).to(config.dtype or torch.float32)


def _read_shapes(path: Path) -> dict[str, list[int]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_slice(key).get_shape() for key in file.keys()}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is truncated or damaged ({error}); copy the folder again") from error


def _fit_shapes(model: nn.Module, shapes: dict[str, list[int]]) -> None:
    """Give every parameter the saved shape (never larger than stock) and its module the matching sizes."""
    for key, parameter in list(model.named_parameters()):
        shape, stock = shapes.get(key, list(parameter.shape)), list(parameter.shape)
        if shape == stock:
            continue
        if len(shape) != len(stock) or any(new > old for new, old in zip(shape, stock, strict=True)):
            raise ArtifactError(f"{WEIGHTS}: '{key}' has shape {shape}, larger than config.json allows ({stock})")
        path, _, leaf = key.rpartition(".")
        module = model.get_submodule(path)
        empty = torch.empty(shape, dtype=parameter.dtype, device="meta")
        setattr(module, leaf, nn.Parameter(empty, requires_grad=parameter.requires_grad))
        if leaf == "weight" and isinstance(module, nn.Linear):
            module.out_features, module.in_features = shape
        elif leaf == "weight" and isinstance(module, nn.Embedding):
            module.num_embeddings, module.embedding_dim = shape
        elif leaf == "weight" and isinstance(module, nn.LayerNorm):
            module.normalized_shape = tuple(shape)


def _module(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise ArtifactError(f"the saved model names the module '{path}', which config.json does not have") from error


def _set_attribute(model: nn.Module, path: str, name: str, value) -> None:
    """Set a number that stock code already has there; anything else in the record is refused."""
    module = _module(model, path)
    stock = vars(module).get(name)
    if name.startswith("_") or not isinstance(stock, int | float) or not isinstance(value, int | float):
        raise ArtifactError(f"{RECORD} sets '{path}.{name}' to {value!r}, which is not a number of that module")
    setattr(module, name, value)


def _restore_buffers(model: nn.Module) -> None:
    """Compute the buffers that are not saved (position ids and the like) as Transformers' own initialisation does."""
    for name, module in model.named_modules():
        lost = [key for key in module._non_persistent_buffers_set if module._buffers[key] is not None]
        for key in lost:
            buffer = module._buffers[key]
            if buffer.numel() > MAX_BUFFER:
                raise ArtifactError(f"{CONFIG} asks for {buffer.numel()} elements of '{name}.{key}'; copy it again")
            sentinel = math.nan if buffer.is_floating_point() else -1
            module._buffers[key] = torch.full(buffer.shape, sentinel, dtype=buffer.dtype, device="cpu")
        if lost:
            model._init_weights(module)
        for key in lost:
            buffer = module._buffers[key]
            if (buffer.isnan() if buffer.is_floating_point() else buffer == -1).any():
                raise InternalError(f"buffer '{name}.{key}' was not restored by this version of transformers")


def _assign(model: nn.Module, state: dict[str, torch.Tensor], ties: list[list[str]] | None) -> None:
    """Put the weights into the model, tied as `ties` says (None: as its config says)."""
    if ties is not None:
        check_ties(model, ties)
        tied = {name for names in ties for name in names[1:]}
    else:
        tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    result = model.load_state_dict(state, strict=False, assign=True)
    missing = sorted(set(result.missing_keys) - tied)
    if missing or result.unexpected_keys:
        raise ArtifactError(
            f"{WEIGHTS} does not fit config.json: {len(missing)} weights missing {missing[:1]}, "
            f"{len(result.unexpected_keys)} unknown {result.unexpected_keys[:1]}; write it with save_optimized"
        )
    if ties is None:
        model.tie_weights()
    else:
        retie(model, ties)
