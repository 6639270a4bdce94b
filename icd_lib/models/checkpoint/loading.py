"""Load a checkpoint into a stock Transformers model, with its tokenizer."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from torch import nn

from icd_lib.errors import ArtifactError, ConfigError, IcdError, ResourceError
from icd_lib.models.checkpoint.config import building, model_class, model_config
from icd_lib.models.checkpoint.files import check_config, weight_files
from icd_lib.models.checkpoint.optimized import RECORD, load_optimized, save_optimized
from icd_lib.models.checkpoint.pairs import MASK, find_pairs, read_permanent
from icd_lib.models.checkpoint.prepare import prepare
from icd_lib.models.checkpoint.source import Checkpoint, find_checkpoint, resolve_checkpoint
from icd_lib.models.families import DEFAULT_FAMILY, find_family
from icd_lib.models.precision import quantised
from icd_lib.paths import user_path

_FLOATS = ("F16", "BF16", "F32", "F64")  # safetensors' names of the dtypes that weights may have

__all__ = ["fetch_models", "load_model", "load_optimized", "load_tokenizer", "open_model", "save_optimized"]


def load_model(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, object]:
    """(model, tokenizer): the class that config.architectures names, SDPA attention, eval mode.

    Pre-training heads (masked LM, next sentence) are left out: the encoder alone is loaded. Every weight must be in
    the checkpoint, except an encoder's pooler, which is then left out as well, and the checkpoint may have no other in
    the modules that the class has. Random weights are seeded and come with the tokenizer of the default checkpoint.
    Raises `ArtifactError` for missing, unknown, misshapen or quantised weights, `ResourceError` without tokenizer,
    `ConfigError` when the tokenizer has more tokens than the model has rows.
    """
    if checkpoint.path is None:
        model = _random_model(checkpoint, dtype)
        tokenizer = load_tokenizer(
            resolve_checkpoint(None, family=find_family(checkpoint.family).tokenizer_of or checkpoint.family)
        )
    else:
        model = _trained_model(checkpoint, dtype)
        if checkpoint.mask:
            find_family(checkpoint.family).put_mask(model, **checkpoint.mask)
        tokenizer = load_tokenizer(checkpoint)
    if len(tokenizer) > model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer of '{checkpoint.name}' has {len(tokenizer)} tokens but the model has "
            f"{model.config.vocab_size} embedding rows; save the tokenizer the model was trained with beside it"
        )
    return prepare(model.eval()), tokenizer


def open_model(name: Path | str) -> tuple[nn.Module, object, str]:
    """(model in evaluation mode, tokenizer, name without a path) of a checkpoint or of a folder that ICD wrote.

    A folder of ours may be without a tokenizer: None.
    """
    folder = user_path(name)
    if (folder / RECORD).is_file():
        return load_optimized(folder), _tokenizer_of(folder), folder.resolve().name
    checkpoint = find_checkpoint(str(name))
    model, tokenizer = load_model(checkpoint)
    return model, tokenizer, checkpoint.name


def _tokenizer_of(folder: Path):
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        return None  # a model can be saved without one, and measured


def load_tokenizer(checkpoint: Checkpoint):
    """The tokenizer saved beside the checkpoint; `ResourceError` when there is none."""
    names = ("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json")
    if not any((checkpoint.path / name).is_file() for name in names):
        raise ResourceError(
            f"'{checkpoint.name}' has no tokenizer ({', '.join(names)}); write it with tokenizer.save_pretrained"
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(
            checkpoint.path, config=model_config(checkpoint), local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the tokenizer of '{checkpoint.name}' cannot be read ({error}); fetch it again") from error


def fetch_models(specs: Sequence[str] = (), report: Callable[[str], None] = print) -> list[dict]:
    """Make checkpoints available for offline work: fill the Hugging Face cache, say where each one comes from.

    Without specs it is the default checkpoint of the default family. Returns one provenance per spec, or
    {"name", "reason"} for one that is not available; never raises for those.
    """
    found = []
    for spec in specs or [find_family(DEFAULT_FAMILY).default.name]:
        try:
            entry = resolve_checkpoint(spec).provenance()
            report(f"{spec}: {entry['source']}, sha256 {entry['sha256'][:12]}, licence {entry['licence']}")
        except IcdError as error:
            entry = {"name": spec, "reason": str(error)}
            report(f"{spec}: {error}")
        found.append(entry)
    return found


def _random_model(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    config = model_config(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checkpoint.seed)
        return model_class(config)._from_config(config, dtype=dtype, **_attention(config))


def _trained_model(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    layout = find_family(checkpoint.family).layout_of(check_config(checkpoint.path, checkpoint.family))
    if layout is not None:
        return layout.load(checkpoint.path, dtype)
    config = model_config(checkpoint)
    found, options, files = model_class(config), {}, weight_files(checkpoint.path)
    pairs = find_pairs(files)
    if "add_pooling_layer" in inspect.signature(found.__init__).parameters and not _has_pooler(checkpoint):
        options["add_pooling_layer"] = False
    with _no_progress_bar(), building(checkpoint.name):
        model, info = found.from_pretrained(
            None if pairs else checkpoint.path,
            state_dict=read_permanent(files) if pairs else None,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **_attention(config),
            **options,
        )
    _check_weights(checkpoint, model, info, pairs)
    return model


def _check_weights(checkpoint: Checkpoint, model: nn.Module, info: dict, pairs: list[str]) -> None:
    """Raise `ArtifactError` unless the files have the weights that the model takes: all, no others, and as numbers.

    pairs: weights that they hold with a mask, which may be of any dtype.
    """
    name = type(model).__name__
    missing = sorted(info["missing_keys"])
    if missing:
        raise ArtifactError(
            f"'{checkpoint.name}' lacks {len(missing)} weights of {name}, first '{missing[0]}'; "
            "save it again with save_pretrained"
        )
    unknown = [key for key in sorted(info["unexpected_keys"]) if _is_inside(model, key)]
    if unknown:
        raise ArtifactError(
            f"'{checkpoint.name}' has {len(unknown)} weights that {name} does not take, first '{unknown[0]}', so it is "
            "of another architecture (relative positions, adapters, more layers than its config.json says)"
        )
    numbers = {key.rpartition(".")[2] for key, buffer in model.named_buffers() if not buffer.is_floating_point()}
    masks = {f"{stem}{MASK}" for stem in pairs}
    for path in weight_files(checkpoint.path):
        with safe_open(path, framework="pt") as file:
            for key in sorted(set(file.keys()) - masks):
                dtype = file.get_slice(key).get_dtype()
                if dtype not in _FLOATS and key.rpartition(".")[2] not in numbers:
                    raise ArtifactError(quantised(f"tensor '{key}' in {path.name}", dtype))


def _is_inside(model: nn.Module, key: str) -> bool:
    """Whether a weight belongs into a module that the model has; buffers that are computed anew are no weights.

    What lies outside (the pooler or the pre-training head of a bare encoder) is a part that the class leaves out.
    """
    base, prefix = model.base_model, f"{model.base_model_prefix}."
    inner = key.removeprefix(prefix)
    if inner in {name.removeprefix(prefix) for name, _ in model.named_buffers()}:
        return False
    parts = {name for part in (model, base) for name, module in part.named_children() if list(module.parameters())}
    return inner.partition(".")[0] in parts


def _attention(config) -> dict:
    """SDPA attention, for a model that has attention."""
    return {"attn_implementation": "sdpa"} if hasattr(config, "num_attention_heads") else {}


def _has_pooler(checkpoint: Checkpoint) -> bool:
    for path in weight_files(checkpoint.path):
        with safe_open(path, framework="pt") as file:
            if any("pooler." in name for name in file.keys()):
                return True
    return False


@contextmanager
def _no_progress_bar():
    """Loading a few megabytes needs no progress bar in a notebook; restores the caller's setting."""
    enabled = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers.utils.logging.enable_progress_bar()
