"""Refuse a model that cannot fit into memory before anything of it is allocated."""

import torch
import transformers
from torch import nn

from icd_lib.errors import ResourceError
from icd_lib.models.checkpoint.config import building, model_class, model_config
from icd_lib.models.checkpoint.source import Checkpoint
from icd_lib.storage.memory import free_memory

WORKING_COPIES = 3  # the dense model, the one being changed, and the best so far
CERTIFICATE_BYTES = 8  # per parameter: axes are verified on one float64 copy


def fitting_dtype(checkpoint: Checkpoint, wanted: str = "float32") -> torch.dtype:
    """`wanted` as a torch dtype, "auto" the wider of float32 and bfloat16 that fits.

    Raises `ResourceError` with the memory a run needs and the memory there is when it does not fit.
    """
    parameters, free = count_parameters(checkpoint), free_memory()
    candidates = ("float32", "bfloat16") if wanted == "auto" else (wanted,)
    for name in candidates:
        dtype = getattr(torch, name)
        if needed_bytes(parameters, dtype) <= free:
            return dtype
    needed = needed_bytes(parameters, dtype)
    raise ResourceError(
        f"'{checkpoint.name}' has {parameters / 1e9:.2f} billion parameters; in {name} a run needs "
        f"{needed / 1e9:.1f} GB (working copies and one float64 copy for the certificates) and {free / 1e9:.1f} GB "
        "are free; take a smaller model, or a machine with more memory"
    )


def count_parameters(checkpoint: Checkpoint) -> int:
    """Parameters of the checkpoint's architecture, counted on torch's meta device: nothing is allocated."""
    config = model_config(checkpoint)
    with building(checkpoint.name), torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


def outline(checkpoint: Checkpoint, dtype: torch.dtype) -> nn.Module:
    """The checkpoint's model on torch's meta device: shapes and types of all it has, and no memory."""
    config = model_config(checkpoint)
    with building(checkpoint.name), torch.device("meta"):
        return model_class(config)._from_config(config, dtype=dtype)


def needed_bytes(parameters: int, dtype: torch.dtype) -> int:
    """Bytes that a run on a model of so many parameters holds at its peak, activations not counted."""
    return parameters * (WORKING_COPIES * dtype.itemsize + CERTIFICATE_BYTES)
