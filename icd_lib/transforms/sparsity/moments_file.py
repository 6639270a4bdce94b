"""Second moments and elimination paths on disk: every mode needs those of the dense model, and they cost minutes."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from icd_lib.errors import ArtifactError
from icd_lib.storage.tensor_file import load_tensors, save_tensors
from icd_lib.transforms.sparsity.obs import Elimination, Moments

_TENSORS = ("gram", "cross", "target_sum")


def kept_moments(path: Path, compute: Callable[[], dict[str, Moments]]) -> dict[str, Moments]:
    """The moments by axis in `path`, bit for bit as they were computed; computed and kept where they are not there."""
    with contextlib.suppress(ArtifactError, KeyError, ValueError):
        return _read(path)
    moments = compute()
    with contextlib.suppress(ArtifactError):  # a cache that cannot be written costs time only
        _write(path, moments)
    return moments


def _read(path: Path) -> dict[str, Moments]:
    arrays, meta = load_tensors(path)
    moments = {}
    for axis in meta["axes"].split():
        square, tokens, bias = meta[axis].split()
        tensors = (torch.from_numpy(arrays[f"{axis}/{name}"]) for name in _TENSORS)
        moments[axis] = Moments(*tensors, float.fromhex(square), int(tokens), bias == "1")
    return moments


def _write(path: Path, moments: dict[str, Moments]) -> None:
    arrays = {f"{axis}/{name}": getattr(m, name).numpy() for axis, m in moments.items() for name in _TENSORS}
    facts = {axis: f"{m.target_square.hex()} {m.tokens} {int(m.bias)}" for axis, m in moments.items()}
    save_tensors(arrays, path, {"axes": " ".join(moments), **facts})


def kept_paths(path: Path, compute: Callable[[], dict[str, Elimination]]) -> dict[str, Elimination]:
    """The elimination paths by axis in `path`, as they were computed; computed and kept where they are not there."""
    with contextlib.suppress(ArtifactError, KeyError):
        arrays, meta = load_tensors(path)
        return {
            axis: Elimination(arrays[f"{axis}/order"].tolist(), arrays[f"{axis}/loss"].tolist())
            for axis in meta["axes"].split()
        }
    paths = compute()
    arrays = {f"{axis}/order": np.array(found.order, dtype=np.int64) for axis, found in paths.items()}
    arrays |= {f"{axis}/loss": np.array(found.loss, dtype=np.float64) for axis, found in paths.items()}
    with contextlib.suppress(ArtifactError):
        save_tensors(arrays, path, {"axes": " ".join(paths)})
    return paths
