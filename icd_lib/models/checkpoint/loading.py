"""Load a checkpoint into a stock Transformers model, with its tokenizer."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn

from icd_lib.errors import ArtifactError, ConfigError, IcdError, ResourceError
from icd_lib.models.checkpoint.files import check_config, weight_files
from icd_lib.models.checkpoint.mamba_original import is_original, load_original
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.checkpoint.prepare import prepare
from icd_lib.models.checkpoint.source import DEFAULT_CHECKPOINT, Checkpoint, resolve_checkpoint

__all__ = ["fetch_models", "load_model", "load_optimized", "load_tokenizer", "save_optimized"]

_TASK_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForCausalLM")


def load_model(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, object]:
    """(model, tokenizer): the class that config.architectures names, SDPA attention, eval mode.

    Pre-training heads (masked LM, next sentence) are left out: the encoder alone is loaded. Every weight must be in
    the checkpoint, except an encoder's pooler, which is then left out as well. Random weights are seeded and come
    with the tokenizer of the default checkpoint. Raises `ArtifactError` for missing or misshapen weights,
    `ResourceError` without tokenizer, `ConfigError` when the tokenizer has more tokens than the model has rows.
    """
    if checkpoint.path is None:
        model = _random_model(checkpoint, dtype)
        tokenizer = load_tokenizer(resolve_checkpoint(None, family=checkpoint.family))
    else:
        model = _trained_model(checkpoint, dtype)
        tokenizer = load_tokenizer(checkpoint)
    if len(tokenizer) > model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer of '{checkpoint.name}' has {len(tokenizer)} tokens but the model has "
            f"{model.config.vocab_size} embedding rows; save the tokenizer the model was trained with beside it"
        )
    return prepare(model.eval()), tokenizer


def load_tokenizer(checkpoint: Checkpoint):
    """The tokenizer saved beside the checkpoint; `ResourceError` when there is none."""
    names = ("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json")
    if not any((checkpoint.path / name).is_file() for name in names):
        raise ResourceError(
            f"'{checkpoint.name}' has no tokenizer ({', '.join(names)}); write it with tokenizer.save_pretrained"
        )
    try:
        return transformers.AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"the tokenizer of '{checkpoint.name}' cannot be read ({error}); fetch it again") from error


def fetch_models(specs: Sequence[str] = (DEFAULT_CHECKPOINT,), report: Callable[[str], None] = print) -> list[dict]:
    """Make checkpoints available for offline work: fill the Hugging Face cache, say where each one comes from.

    Returns one provenance per spec, or {"name", "reason"} for one that is not available; never raises for those.
    """
    found = []
    for spec in specs:
        try:
            entry = resolve_checkpoint(spec).provenance()
            report(f"{spec}: {entry['source']}, sha256 {entry['sha256'][:12]}, licence {entry['licence']}")
        except IcdError as error:
            entry = {"name": spec, "reason": str(error)}
            report(f"{spec}: {error}")
        found.append(entry)
    return found


def _random_model(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    config = transformers.AutoConfig.for_model(**checkpoint.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checkpoint.seed)
        return _model_class(config)._from_config(config, dtype=dtype, **_attention(config))


def _trained_model(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    if is_original(check_config(checkpoint.path, checkpoint.family)):
        return load_original(checkpoint.path, dtype)
    config = transformers.AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
    model_class = _model_class(config)
    options = {}
    if "add_pooling_layer" in inspect.signature(model_class.__init__).parameters and not _has_pooler(checkpoint):
        options["add_pooling_layer"] = False
    with _no_progress_bar():
        try:
            model, info = model_class.from_pretrained(
                checkpoint.path,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **_attention(config),
                **options,
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ArtifactError(f"'{checkpoint.name}' does not fit its config.json ({error}); fetch it anew") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ArtifactError(
            f"'{checkpoint.name}' lacks {len(missing)} weights of {model_class.__name__}, first '{missing[0]}'; "
            "save it again with save_pretrained"
        )
    return model


def _model_class(config) -> type:
    """The architecture's own class when it has a task head, else the bare encoder of its model_type."""
    name = (config.architectures or [""])[0]
    if name.endswith(_TASK_HEADS) and hasattr(transformers, name):
        return getattr(transformers, name)
    return transformers.MODEL_MAPPING[type(config)]


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
