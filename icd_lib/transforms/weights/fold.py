"""The folded order: the model's axes are permuted offline, and the function is what it was."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from icd_lib.axes.double import KeepDouble, copied, in_double
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import TOLERANCE, model_outputs, outputs_error
from icd_lib.errors import AxisError
from icd_lib.models.families import find_adapter

PROBE_TOKENS = 32  # of one row, on which equality is checked


def fold(model: nn.Module, perms: Mapping[str, np.ndarray], example: dict) -> float:
    """Permute the axes of `model` (axis → gather), in place; the largest relative error of an output, in float64.

    example: the model's inputs, of which a few tokens are used. Raises `AxisError` (model untouched) where the function
    would change by more than 1e-6.
    """
    moving = {name: perm for name, perm in perms.items() if not np.array_equal(perm, np.arange(len(perm)))}
    if not moving:
        return 0.0
    probe, double = in_double(_few(example)), copied(model).double()
    with KeepDouble():
        before = model_outputs(double, probe)
        _permute(double, moving)
        error = outputs_error(model_outputs(double, probe), before)
    if not error <= TOLERANCE:
        raise AxisError(
            f"the order of {len(moving)} axes, first {next(iter(moving))!r}, changes the outputs by {error:.2e} "
            f"relative (allowed {TOLERANCE:.0e}); it is refused and the model is untouched"
        )
    _permute(model, moving)
    return error


def _permute(model: nn.Module, perms: Mapping[str, np.ndarray]) -> None:
    axes = {axis.name: axis for axis in find_adapter(model).axes()}
    for name, perm in perms.items():
        permute(model, axes[name], perm)


def _few(example: dict) -> dict:
    """The last tokens of the first row, which are text where a batch is padded on the left; on the right, the first."""
    mask = example.get("attention_mask")
    there = torch.arange(example["input_ids"].shape[1]) if mask is None else mask[0].nonzero()[:, 0]
    return {
        name: value[:1, there[:PROBE_TOKENS]] if torch.is_tensor(value) and value.ndim == 2 else value
        for name, value in example.items()
    }
