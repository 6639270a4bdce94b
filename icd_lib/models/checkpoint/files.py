"""The files of a checkpoint: safetensors only, checked for damage, architecture and non-finite weights, and hashed."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.models.families import FAMILIES, find_family, why_refused
from icd_lib.models.precision import FLOATS, quantised
from icd_lib.storage.json_text import read_text

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
_HASH_CHUNK = 1 << 22  # bytes


def check_config(folder: Path, family: str) -> dict:
    """config.json as a dict; `ArtifactError` when unreadable, `ConfigError` when not an architecture of `family`."""
    row = find_family(family)
    path = folder / "config.json"
    try:
        config = read_text(path)
    except FileNotFoundError as error:
        raise ResourceError(f"{folder} is no checkpoint: no config.json; write it with save_pretrained") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}); fetch the checkpoint again") from error
    layout = row.layout_of(config)
    if layout is not None:
        layout.check(config, path)
        return config
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type not in row.model_types:
        raise ConfigError(
            f"{folder.name} is of model_type {model_type!r}{why_refused(model_type)}; family '{family}' takes "
            f"{list(row.model_types)}, known families: {sorted(FAMILIES)}"
        )
    return config


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sharded or not; `ResourceError` when there are none or only pickles."""
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        try:
            names = sorted(set(read_text(index)["weight_map"].values()))
            missing = [name for name in names if Path(name).name != name or not (folder / name).is_file()]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ArtifactError(f"{index} cannot be read ({error!r}); fetch the checkpoint again") from error
        if missing or not names:
            raise ArtifactError(f"{folder} lacks the weight files {missing or 'its index should name'}; fetch it again")
        return [folder / name for name in names]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ResourceError(
            f"{folder} has only {pickles[0]}, and loading it can run code; convert it once where you trust it: "
            "AutoModel.from_pretrained(folder).save_pretrained(new_folder, safe_serialization=True)"
        )
    raise ResourceError(f"{folder} has no model.safetensors; write it with save_pretrained")


def check_weights(files: list[Path]) -> None:
    """Every tensor can be read, is finite and no quantised number; `ArtifactError` names the file or the tensor."""
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    tensor = file.get_tensor(name)
                    if tensor.is_floating_point() and tensor.dtype not in FLOATS:
                        raise ArtifactError(quantised(f"tensor '{name}' in {path.name}", tensor.dtype))
                    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                        raise ArtifactError(
                            f"tensor '{name}' in {path.name} holds NaN or infinite values; the checkpoint is unusable, "
                            "fetch or train it again"
                        )
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} is truncated or damaged ({error}); fetch the checkpoint again") from error


def hash_files(files: list[Path]) -> str:
    """sha256 of one file, or over the files one after another."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
