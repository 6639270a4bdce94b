"""Weights that `torch.nn.utils.prune` left as `<name>_orig` and `<name>_mask`, because nobody made them permanent."""

from pathlib import Path

import torch
from safetensors import safe_open

from icd_lib.errors import ArtifactError

ORIGINAL, MASK = "_orig", "_mask"


def find_pairs(files: list[Path]) -> list[str]:
    """Names of the weights that the files hold as pairs, in order."""
    names = {name for path in files for name in _names(path)}
    stems = (name.removesuffix(MASK) for name in sorted(names) if name.endswith(MASK))
    return [stem for stem in stems if f"{stem}{ORIGINAL}" in names]


def read_permanent(files: list[Path]) -> dict[str, torch.Tensor]:
    """All weights of the files, every pair multiplied out; `ArtifactError` for a mask that does not fit its weight."""
    tensors = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    for stem in find_pairs(files):
        weight, mask = tensors.pop(f"{stem}{ORIGINAL}"), tensors.pop(f"{stem}{MASK}")
        if mask.shape != weight.shape or not bool(((mask == 0) | (mask == 1)).all()):
            raise ArtifactError(
                f"'{stem}{MASK}' is no mask of 0 and 1 in the shape {tuple(weight.shape)} of '{stem}{ORIGINAL}'; make "
                "the pruning permanent with torch.nn.utils.prune.remove and save the model again"
            )
        tensors[stem] = weight * mask.to(weight.dtype)
    return tensors


def _names(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())
