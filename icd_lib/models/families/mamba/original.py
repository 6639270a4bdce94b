"""Checkpoints in the layout of the package mamba_ssm: its own config.json, and weights under slightly other names.

`{"d_model", "n_layer", "vocab_size", "ssm_cfg", ...}` beside `pytorch_model.bin` or `model.safetensors`. A .bin file is
a pickle; it is read with torch's restricted unpickler, which builds tensors and runs nothing.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.models.precision import FLOATS, quantised
from icd_lib.storage.json_text import read_text

FILES = ("model.safetensors", "pytorch_model.bin")
_SSM = {"d_state": "state_size", "d_conv": "conv_kernel", "expand": "expand", "dt_rank": "time_step_rank"}
_SSM_FLAGS = {"bias": "use_bias", "conv_bias": "use_conv_bias"}
_INIT_ONLY = ("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor", "use_fast_path", "layer")
_RENAMED = {"backbone.embedding.weight": "backbone.embeddings.weight"}


def is_original(config: dict) -> bool:
    """config.json is one that mamba_ssm wrote (its keys, and no `model_type`)."""
    return "model_type" not in config and {"d_model", "n_layer"} <= set(config)


def stock_config(config: dict) -> dict:
    """The keywords of `transformers.MambaConfig` that describe the same model; `ConfigError` for what is no Mamba-1.

    >>> stock_config({"d_model": 64, "n_layer": 2, "vocab_size": 50277, "ssm_cfg": {"d_state": 8}})["vocab_size"]
    50280
    """
    ssm = dict(config.get("ssm_cfg") or {})
    if ssm.get("layer", "Mamba1") != "Mamba1":
        raise ConfigError(f"this is a {ssm['layer']} checkpoint; family 'mamba' takes Mamba1")
    for key in ("attn_layer_idx", "d_intermediate"):
        if config.get(key):
            raise ConfigError(f"config.json has {key} = {config[key]!r}: a hybrid; family 'mamba' takes pure Mamba-1")
    if not config.get("rms_norm", True):
        raise ConfigError("config.json has rms_norm false; Transformers' Mamba has RMSNorm only")
    unknown = sorted(set(ssm) - set(_SSM) - set(_SSM_FLAGS) - set(_INIT_ONLY))
    if unknown:
        raise ConfigError(f"ssm_cfg has {unknown[0]!r}, which is not known of Mamba-1; known: {sorted(_SSM)}")
    multiple = config.get("pad_vocab_size_multiple", 8)
    return {
        "vocab_size": -(-config["vocab_size"] // multiple) * multiple,
        "hidden_size": config["d_model"],
        "num_hidden_layers": config["n_layer"],
        "residual_in_fp32": config.get("residual_in_fp32", True),
        "tie_word_embeddings": config.get("tie_embeddings", True),
        **{stock: ssm[name] for name, stock in (_SSM | _SSM_FLAGS).items() if name in ssm},
    }


def check_original(config: dict, path: Path) -> None:
    """Raise `ArtifactError` or `ConfigError` unless the contents of `path` describe a Mamba-1."""
    try:
        stock_config(config)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ArtifactError(f"{path} is no config of a Mamba ({error!r}); fetch the checkpoint again") from error


def read_config(folder: Path):
    """The `transformers.MambaConfig` of such a checkpoint."""
    from transformers import MambaConfig

    return MambaConfig(**stock_config(read_text(folder / "config.json")), architectures=["MambaForCausalLM"])


def original_files(folder: Path) -> list[Path]:
    """The weight file of such a checkpoint; `ResourceError` when there is none."""
    for name in FILES:
        if (folder / name).is_file():
            return [folder / name]
    raise ResourceError(f"{folder} has neither {FILES[0]} nor {FILES[1]}; fetch the checkpoint again")


def sound_files(folder: Path) -> list[Path]:
    """`original_files`, read once: `ArtifactError` when damaged or not finite."""
    files = original_files(folder)
    read_weights(files[0])
    return files


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors under Transformers' names; `ArtifactError` when damaged or not finite."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"{path} is damaged or holds more than tensors ({reason}); fetch it again") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise ArtifactError(f"{path} is no state_dict of tensors; fetch the checkpoint again")
    for name, tensor in state.items():
        if tensor.dtype not in FLOATS:
            raise ArtifactError(quantised(f"tensor '{name}' in {path.name}", tensor.dtype))
        if not torch.isfinite(tensor).all():
            raise ArtifactError(f"tensor '{name}' in {path.name} holds NaN or infinite values; fetch or train it again")
    return {_RENAMED.get(name, name): tensor for name, tensor in state.items()}


def load_original(folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """`MambaForCausalLM` with the weights of `folder`, eval mode; every weight must be there, and no other.

    Raises `ArtifactError` for missing, unknown or misshapen weights.
    """
    from transformers import MambaForCausalLM

    config = read_config(folder)
    config.dtype = dtype
    with torch.device("meta"):
        model = MambaForCausalLM(config)
    state = {name: tensor.to(dtype) for name, tensor in read_weights(original_files(folder)[0]).items()}
    wanted = model.state_dict()
    if config.tie_word_embeddings:
        state.setdefault("lm_head.weight", state.get("backbone.embeddings.weight"))
    missing, unknown = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    if missing or unknown or state["lm_head.weight"] is None:
        raise ArtifactError(
            f"{folder.name} does not fit its config.json: {len(missing)} weights missing {missing[:1]}, "
            f"{len(unknown)} unknown {unknown[:1]}; fetch the checkpoint again"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise ArtifactError(
                f"'{name}' of {folder.name} has shape {tuple(tensor.shape)}, its config.json says "
                f"{tuple(wanted[name].shape)}; fetch the checkpoint again"
            )
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    return model.eval()
