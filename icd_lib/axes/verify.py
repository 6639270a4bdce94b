"""Prove that an axis is one: a random permutation of it must leave the model's outputs equal in float64."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from icd_lib.axes.axis import Axis
from icd_lib.axes.double import KeepDouble, copied, in_double
from icd_lib.axes.permutation import hash_permutation, invert_permutation
from icd_lib.axes.permute import permute
from icd_lib.errors import FOREIGN, AxisError, TransformError

EXAMPLE_ROWS = 2
TOLERANCE = 1e-6  # relative, float64 (design section 5)


def first_rows(inputs: dict, count: int = EXAMPLE_ROWS) -> dict:
    """The first rows of a batch of a model's inputs: by default enough for an equality check."""
    return {name: value[:count] if torch.is_tensor(value) and value.ndim else value for name, value in inputs.items()}


def run_model(model: nn.Module, inputs: dict):
    """What the model returns; `TransformError` where it does not run on the inputs."""
    try:
        return model(**inputs)
    except torch.OutOfMemoryError:  # not the inputs' fault: whoever computes says what to make smaller
        raise
    except FOREIGN as error:
        raise TransformError(
            f"{type(model).__name__} does not run on the inputs {sorted(inputs)} ({type(error).__name__}: {error}); "
            "pass the dicts that model(**inputs) takes"
        ) from error


@torch.inference_mode()
def model_outputs(model: nn.Module, inputs: dict) -> dict[str, torch.Tensor]:
    """Every floating-point tensor the model returns, by name."""
    result = run_model(model, inputs)
    values = result if isinstance(result, tuple | list) else [result]
    named = result.items() if hasattr(result, "items") else [(f"output {i}", value) for i, value in enumerate(values)]
    found = {name: value for name, value in named if torch.is_tensor(value) and value.is_floating_point()}
    if not found:
        raise AxisError("the model returns no floating-point tensor, so nothing can be compared; check its inputs")
    return found


def relative_error(candidate: torch.Tensor, reference: torch.Tensor) -> float:
    """max |candidate − reference| / max |reference|."""
    return float((candidate - reference).abs().max() / reference.abs().max().clamp_min(1e-300))


def outputs_error(candidate: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]) -> float:
    """Largest `relative_error` over the outputs of two runs; NaN if one is NaN, which Python's max would hide."""
    return float(np.max([relative_error(candidate[name], reference[name]) for name in reference]))


def output_permutation_undone(outputs: dict, axis: Axis, perm: np.ndarray) -> dict:
    """Outputs that carry the axis, put back into the original order."""
    inverse = torch.from_numpy(invert_permutation(perm))
    dims = dict(axis.output_dims)
    return {
        name: value.index_select(dims[name], inverse.to(value.device)) if name in dims else value
        for name, value in outputs.items()
    }


def verify_axes(
    model: nn.Module, axes: Iterable[Axis], example_inputs: dict, seed: int = 0, perms: dict | None = None
) -> list[dict]:
    """Certificates, one per axis: `{"axis", "kind", "size", "max_rel_error", "perm_hash"}`.

    Permutations are random, or those of `perms` (axis name → perm). The check runs on one float64 copy: all axes of a
    kind are permuted together, and each alone where that changes the outputs; then they are put back. The error is that
    of the check which the axis passed.
    Raises `AxisError` naming the first axis whose error exceeds 1e-6.
    """
    generator = np.random.default_rng(seed)
    double = copied(model).double()
    reference = _exact_outputs(double, example_inputs)
    chosen = [
        (axis, generator.permutation(axis.size) if perms is None else np.asarray(perms[axis.name])) for axis in axes
    ]
    errors: dict[str, float] = {}
    for kind in dict.fromkeys(axis.kind for axis, _ in chosen):
        pairs = [(axis, perm) for axis, perm in chosen if axis.kind == kind]
        error = _joint_error(double, pairs, example_inputs, reference)
        errors |= {axis.name: error for axis, _ in pairs}
        if error <= TOLERANCE:
            continue
        for axis, perm in pairs:
            errors[axis.name] = error = _joint_error(double, [(axis, perm)], example_inputs, reference)
            if not error <= TOLERANCE:
                raise AxisError(
                    f"axis {axis.name!r} changes the outputs by {error:.2e} relative (allowed {TOLERANCE:.0e}); "
                    "it is refused and the model is untouched"
                )
    return [
        {
            "axis": axis.name,
            "kind": axis.kind,
            "size": axis.size,
            "max_rel_error": errors[axis.name],
            "perm_hash": hash_permutation(perm),
        }
        for axis, perm in chosen
    ]


def _joint_error(
    double: nn.Module, pairs: list[tuple[Axis, np.ndarray]], inputs: dict, reference: dict[str, torch.Tensor]
) -> float:
    """How far the outputs move when the axes are permuted, one after the other; then the model is as it was."""
    for axis, perm in pairs:
        permute(double, axis, perm)
    outputs = _exact_outputs(double, inputs)
    for axis, perm in reversed(pairs):
        outputs = output_permutation_undone(outputs, axis, perm)
        permute(double, axis, invert_permutation(perm))
    return outputs_error(outputs, reference)


def _exact_outputs(double: nn.Module, inputs: dict) -> dict[str, torch.Tensor]:
    with KeepDouble():
        return model_outputs(double, in_double(inputs))
