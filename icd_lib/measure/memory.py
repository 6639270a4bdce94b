"""Sizes that do not depend on the clock: parameter bytes, FLOPs, alive tiles, and the peak of memory in use."""

import math
import resource
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from icd_lib.errors import MeasureError
from icd_lib.metric import Figure, figure
from icd_lib.models.quantized import held_by
from icd_lib.storage.memory import largest_resident, peak_resident

_CLEAR_REFS = Path("/proc/self/clear_refs")


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, shared ones counted once; a weight on a grid takes what its codes and scales do."""
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return held - sum(sort.saved_bytes(module) for module, sort in held_by(model).values())


def peak_memory_mb(call: Callable[[], object]) -> Figure:
    """Figure: highest resident memory of this process while `call` ran, in MB (1e6 bytes), everything loaded included.

    On Linux the kernel's high-water mark is reset before the call; elsewhere, or where that is forbidden, the figure is
    the peak since the process started, and the method says so.
    """
    was_reset = _reset_high_water_mark()
    call()
    if was_reset:
        value, method = peak_resident(), "peak resident set during the call (VmHWM, reset before it)"
    else:
        value = largest_resident(resource.RUSAGE_SELF)
        method = "peak resident set since the process started (ru_maxrss)"
    return figure(value / 1e6, "MB", "measured", n=1, method=method)


def linear_flops(model: nn.Module, batch: int, length: int) -> int:
    """FLOPs of one forward pass at (batch, length): Linears and attention products, a multiply-add counting two.

    Linear: 2 * rows * in_features * out_features, the rows seen by a hook in a real forward pass. Attention, for every
    module with `query` and `value` Linears: 2 * B * L^2 * (query.out_features + value.out_features).
    """
    total = 0

    def count(module: nn.Linear, args, _output) -> None:
        nonlocal total
        total += 2 * (args[0].numel() // module.in_features) * module.in_features * module.out_features

    handles = [module.register_forward_hook(count) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        with torch.no_grad():
            model(
                input_ids=torch.zeros(batch, length, dtype=torch.long),
                attention_mask=torch.ones(batch, length, dtype=torch.long),
            )
    finally:
        for handle in handles:
            handle.remove()
    for module in model.modules():
        query, value = getattr(module, "query", None), getattr(module, "value", None)
        if isinstance(query, nn.Linear) and isinstance(value, nn.Linear):
            total += 2 * batch * length**2 * (query.out_features + value.out_features)
    return total


def alive_tiles(widths: Mapping[str, int | np.ndarray], tile: int) -> dict:
    """Tiles of `tile` elements that hold anything alive: {"total", "per_axis"}.

    widths: axis -> number of kept elements (already compacted), or a bool array (D,) of what is alive in its layout.

    >>> alive_tiles({"a": 33, "b": np.array([True, False, False, False, False, True])}, 2)
    {'total': 19, 'per_axis': {'a': 17, 'b': 2}}
    """
    if tile < 1:
        raise MeasureError(f"a tile holds at least one element, got {tile}")
    per_axis = {}
    for axis, kept in widths.items():
        if isinstance(kept, np.ndarray):
            if kept.dtype != np.bool_ or kept.ndim != 1:
                raise MeasureError(f"{axis}: expected a 1-D bool array, got {kept.dtype} of shape {kept.shape}")
            per_axis[axis] = len(np.unique(np.flatnonzero(kept) // tile))
        else:
            per_axis[axis] = math.ceil(int(kept) / tile)
    return {"total": sum(per_axis.values()), "per_axis": per_axis}


def _reset_high_water_mark() -> bool:
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return True
