"""The weights in groups that a model holds, in the form that engines multiply packed."""

from torch import nn

from icd_lib.decoding.grouped import Grouped
from icd_lib.models.grouped import check_contiguous, grid_of, grouped_modules


def grouped_weights(model: nn.Module) -> dict[str, Grouped]:
    """Name of a weight ("model.layers.0.mlp.up_proj.weight") → its codes; a tied one under its first name.

    Raises `TransformError` for groups that are no stretches of columns: an engine would have to gather them.
    """
    check_contiguous(model)
    found: dict[str, Grouped] = {}
    seen: set[int] = set()
    for name, module in grouped_modules(model).items():
        if id(module.weight) in seen:
            continue
        seen.add(id(module.weight))
        grid = grid_of(module).canonical()
        codes = grid.codes_of(module.weight.detach())
        found[f"{name}.weight"] = Grouped(
            codes.numpy(), grid.scale.float().numpy(), grid.zero.float().numpy(), grid.bits
        )
    return found
