"""Arrays and words in a safetensors file, written wholly or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from icd_lib.errors import ArtifactError


@contextlib.contextmanager
def usual_rights(path: Path) -> Iterator[None]:
    """What is written to `path` within gets the rights of any new file: safetensors' own only their owner can read."""
    path.touch()
    mode = path.stat().st_mode
    yield
    path.chmod(mode)


def save_tensors(tensors: dict[str, np.ndarray], path: Path, meta: dict[str, str]) -> None:
    """Write arrays and words as safetensors, wholly or not at all; `ArtifactError` where that fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with usual_rights(partial):
            save_file({name: np.ascontiguousarray(x) for name, x in tensors.items()}, partial, metadata=meta)
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ArtifactError(f"cannot write {path} ({error}); check the free space and the rights of --out") from error


def load_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What `save_tensors` wrote; `ArtifactError` if it is missing or damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is missing or damaged ({error}); run the stage that writes it again") from error
