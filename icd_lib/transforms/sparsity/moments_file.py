"""Second moments on disk: every mode needs those of the dense model, and they cost a pass over the calibration text."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from icd_lib.errors import ArtifactError
from icd_lib.storage.tensor_file import load_tensors, save_tensors
from icd_lib.transforms.sparsity.obs import Moments

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
