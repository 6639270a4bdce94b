"""What adapters of several families say of a model's parts."""

import torch
from torch import nn

from icd_lib.axes.axis import Slot


def has_module(module: nn.Module, path: str) -> bool:
    """Whether `module` has a submodule at the dotted `path`.

    >>> pair = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))
    >>> has_module(pair, "1.0"), has_module(pair, "1.weight"), has_module(pair, "0.weight")
    (True, False, False)
    """
    try:
        module.get_submodule(path)
    except AttributeError:
        return False
    return True


def linear_rows(path: str, module: nn.Module, **slot) -> list[Slot]:
    """Rows of a Linear (channels of a depthwise Conv1d) at `path`, and of its bias if it has one.

    >>> [slot.parameter for slot in linear_rows("up", nn.Linear(2, 3))]
    ['up.weight', 'up.bias']
    >>> linear_rows("up", nn.Linear(2, 3, bias=False), start=3)
    [Slot(parameter='up.weight', dim=0, block=1, start=3, copies=1, partial=False)]
    """
    return [Slot(f"{path}.{name}", 0, **slot) for name in ("weight", "bias") if getattr(module, name) is not None]


def unchanged(hidden: torch.Tensor) -> torch.Tensor:
    """The residual stream as it is: no norm ends the block."""
    return hidden
