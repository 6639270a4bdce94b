"""Token-id maps: let the rows of an embedding (and of a decoder) move while callers keep their token ids."""

import torch
from torch import nn


class _Mapped(nn.Module):
    """A module whose row for token t is `id_map[t]`; the stock class that it was comes next but one in the MRO."""

    id_map: torch.Tensor


class _MappedRows(_Mapped):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(self.id_map[input])


class _MappedLogits(_Mapped):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)[..., self.id_map]


def _stock_class(module: nn.Module) -> type:
    return type(module).__mro__[3]


_CLASSES: dict[type, type] = {}


def _mapped_class(stock: type) -> type:
    """The class that does what an embedding's or a decoder's does, through a token map."""
    if stock not in _CLASSES:
        mapped = _MappedRows if issubclass(stock, nn.Embedding) else _MappedLogits
        made: dict = {"__reduce_ex__": _rebuilt}
        _CLASSES[stock] = type(f"Mapped{stock.__name__}", (mapped, stock), made)
    return _CLASSES[stock]


def _rebuilt(module: nn.Module, _protocol) -> tuple:
    """How such a module is copied and pickled: its class is made here and stands in no module."""
    return _empty, (_stock_class(module),), module.__dict__.copy()


def _empty(stock: type) -> nn.Module:
    return object.__new__(_mapped_class(stock))


def install_token_map(module: nn.Module) -> None:
    """Give an embedding or decoder an identity token map, unless it has one; parameters (and ties) stay the same."""
    if isinstance(module, _Mapped):
        return
    rows = module.weight.shape[0]
    module.__class__ = _mapped_class(type(module))
    module.register_buffer("id_map", torch.arange(rows, device=module.weight.device))


def apply_token_map(module: nn.Module, inverse: torch.Tensor) -> None:
    """Follow rows that moved from position i to `inverse[i]`."""
    module.id_map.copy_(inverse.to(module.id_map.device)[module.id_map])


@torch.no_grad()
def fold_token_maps(model: nn.Module) -> None:
    """Row t becomes the row the map names for token t, once in every tensor; the modules are stock again, in place."""
    rows = {}
    for module in model.modules():
        if isinstance(module, _Mapped):
            rows |= {parameter: module.id_map for parameter in module.parameters(recurse=False)}
            del module._buffers["id_map"]
            module.__class__ = _stock_class(module)
    for parameter, id_map in rows.items():
        parameter.copy_(parameter[id_map])
