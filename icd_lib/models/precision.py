"""Half precision: computed in float32 inside, given back in the dtypes that the user's model has."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from icd_lib.axes.double import copied
from icd_lib.errors import TransformError

HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32, torch.float64)  # what weights may be; narrower ones are quantised


def quantised(what: str, dtype: object) -> str:
    """Why a tensor that is no floating-point number of at least 16 bits is refused, in words, with the cure."""
    name = str(dtype).removeprefix("torch.")
    return (
        f"{what} is {name}: quantised, and read as weights it would give another model; take the model it was made "
        "from, in float32, float16 or bfloat16"
    )


# Parameter or buffer → the dtype that the user's model has there, of those that are raised inside.
Dtypes = Mapping[str, torch.dtype]


def working_copy(model: nn.Module) -> tuple[nn.Module, Dtypes]:
    """A copy of `model` in eval mode whose half-precision tensors are float32, and what they were.

    Tied tensors stay tied. Raises `TransformError` for a model that cannot be copied.
    """
    worked = copied(model)
    dtypes = {name: tensor.dtype for name, tensor in _tensors(worked).items() if tensor.dtype in HALF}
    _cast(worked, dict.fromkeys(dtypes, torch.float32))
    return worked, dtypes


def in_users_dtype(model: nn.Module, dtypes: Dtypes) -> nn.Module:
    """`model` itself where nothing was raised, else a copy of it with the dtypes of the user's model.

    Raises `TransformError` naming a parameter that is finite in float32 and not in that dtype.
    """
    if not dtypes:
        return model
    lowered = copy.deepcopy(model)
    _cast(lowered, dtypes)
    name = overflown(lowered)
    if name is not None:
        raise TransformError(f"'{name}' is not finite in {dtypes[name]}; load the model in bfloat16 or float32")
    return lowered


def overflown(model: nn.Module) -> str | None:
    """The first floating-point parameter or buffer of `model` that is not finite."""
    tensors = _tensors(model).items()
    return next((name for name, value in tensors if value.is_floating_point() and not value.isfinite().all()), None)


def as_given(quality: Callable[[nn.Module], float], dtypes: Dtypes) -> Callable[[nn.Module], float]:
    """`quality` of a model as the user will get it: what is judged is what is given back."""
    return (lambda model: quality(in_users_dtype(model, dtypes))) if dtypes else quality


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _cast(model: nn.Module, dtypes: Dtypes) -> None:
    for name, tensor in _tensors(model).items():
        if name in dtypes:
            tensor.data = tensor.data.to(dtypes[name])
