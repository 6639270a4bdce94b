"""Let a float64 copy of a model really compute in float64, so that an equality can be proved to the last digits."""

import copy

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from icd_lib.errors import TransformError


class Unrounded(TorchFunctionMode):
    """Within this context a model with quantised Linears rounds none of their inputs.

    Equality of two layouts is asked of what they compute without it: in another order the sums before a rounding edge
    differ in their last digits, and a value that falls on its other side is no error of the layout.

    >>> with Unrounded():
    ...     torch.fake_quantize_per_tensor_affine(torch.tensor([0.3]), 1.0, 0, 0, 255).item() > 0
    True
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.fake_quantize_per_tensor_affine:
            return args[0]
        return func(*args, **(kwargs or {}))


class KeepDouble(Unrounded):
    """Within this context `x.float()` and `x.to(torch.float32)` leave a float64 tensor as it is; nothing is rounded.

    Models raise their norms and logits to float32 whatever they were loaded in; for a float64 model that is a loss, and
    its 1e-7 per layer would hide an error of that size.

    >>> x = torch.zeros(2, dtype=torch.float64)
    >>> with KeepDouble():
    ...     x.float().dtype, x.to(dtype=torch.float32).dtype, x.to(torch.int64).dtype
    (torch.float64, torch.float64, torch.int64)
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        if func is torch.Tensor.to and args[0].dtype == torch.float64:
            args = tuple(torch.float64 if _is_floating(value) else value for value in args)
            kwargs = {name: torch.float64 if _is_floating(value) else value for name, value in kwargs.items()}
        return super().__torch_function__(func, types, args, kwargs)


def _is_floating(value) -> bool:
    return isinstance(value, torch.dtype) and value.is_floating_point


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode; `TransformError` for one that cannot be copied."""
    try:
        return copy.deepcopy(model).eval()
    except torch.OutOfMemoryError:  # not the model's fault, nor a candidate's
        raise
    except (RuntimeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), "")[:150]
        raise TransformError(
            f"{type(model).__name__} cannot be copied ({reason}); take off what holds computed tensors: masks "
            "with torch.nn.utils.prune.remove (icd.compact_masked does, and takes out what is dead), hooks that keep "
            "tensors"
        ) from error


def in_double(inputs: dict) -> dict:
    """The inputs of a float64 model: floating-point tensors (embeddings, encoder states) in float64.

    >>> in_double({"x": torch.zeros(1), "input_ids": torch.zeros(1, dtype=torch.long)})["x"].dtype
    torch.float64
    """
    return {
        name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
