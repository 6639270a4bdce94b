"""Token-id maps: let the rows of an embedding (and of a decoder) move while callers keep their token ids."""

import torch
from torch import nn


class MappedEmbedding(nn.Embedding):
    """Embedding whose row for token t is `id_map[t]`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(self.id_map[input])


class MappedLinear(nn.Linear):
    """Decoder whose logit for token t is computed by row `id_map[t]`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)[..., self.id_map]


def install_token_map(module: nn.Module) -> None:
    """Give an embedding or decoder an identity token map, unless it has one; parameters (and ties) stay the same."""
    if hasattr(module, "id_map"):
        return
    rows = module.weight.shape[0]
    module.__class__ = MappedEmbedding if isinstance(module, nn.Embedding) else MappedLinear
    module.register_buffer("id_map", torch.arange(rows, device=module.weight.device))


def apply_token_map(module: nn.Module, inverse: torch.Tensor) -> None:
    """Follow rows that moved from position i to `inverse[i]`."""
    module.id_map.copy_(inverse.to(module.id_map.device)[module.id_map])


@torch.no_grad()
def fold_token_maps(model: nn.Module) -> None:
    """Row t becomes the row the map names for token t, once in every tensor; the modules are stock again, in place."""
    rows = {}
    for module in model.modules():
        if isinstance(module, MappedEmbedding | MappedLinear):
            rows |= {parameter: module.id_map for parameter in module.parameters(recurse=False)}
            del module._buffers["id_map"]
            module.__class__ = nn.Embedding if isinstance(module, MappedEmbedding) else nn.Linear
    for parameter, id_map in rows.items():
        parameter.copy_(parameter[id_map])
