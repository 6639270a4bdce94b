"""A copy of a model whose weights are plain parameters, whatever masks or parametrizations they come from."""

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize, prune


def plain_copy(model: nn.Module) -> nn.Module:
    """Copy in which masks of `torch.nn.utils.prune` and parametrizations are worked into the weights.

    The given model is not changed. A masked weight is no leaf of autograd, so `copy.deepcopy` alone would refuse it.
    """
    derived: dict[int, torch.Tensor] = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if torch.is_tensor(value) and not value.is_leaf
    }
    plain = copy.deepcopy(model, derived)
    for module in list(plain.modules()):
        for name in [name.removesuffix("_mask") for name, _ in module.named_buffers(recurse=False)]:
            if f"{name}_orig" in module._parameters:
                prune.remove(module, name)
        if parametrize.is_parametrized(module):
            # A copy shares the class that torch made for the original, and removing deletes from that class.
            shared = type(module)
            module.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return plain
