"""The attention by which Transformers' decoders read a `PagedCache`, under the name that a config takes.

Transformers hands an attention function no cache, only the keys that the cache returned: those of a `PagedCache` know
the layer they come from, and the layer knows which of its slots are alive.
"""

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from icd_lib.errors import ConfigError
from icd_lib.models.cache.attend import attend_stock
from icd_lib.models.cache.layer import MARK
from icd_lib.models.cache.shape import kv_shape

PAGED = "icd_paged"


def use_paged_attention(model: nn.Module) -> nn.Module:
    """Let `model` attend by `PAGED`, with a `PagedCache` and without; returns the model, changed in place.

    Raises `ConfigError` for a model that `kv_shape` refuses.
    """
    kv_shape(model)
    model.set_attn_implementation(PAGED)
    return model


def paged_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention in the form that Transformers asks for: (B, L, H, d) and no weights."""
    for name in ("softcap", "sliding_window"):
        if kwargs.get(name) is not None:
            raise ConfigError(f"attention with {name} = {kwargs[name]} is not what a PagedCache computes; use sdpa")
    if dropout:
        raise ConfigError(f"attention dropout of {dropout} is for training; call model.eval()")
    if attention_mask is not None and attention_mask.ndim != 2:
        raise ConfigError(
            f"the attention mask has shape {tuple(attention_mask.shape)}; PagedCache takes one of tokens, "
            "(batch, length)"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = getattr(key, MARK, None)
    if layer is None:
        out = attend_stock(query, key, value, attention_mask, scale)
    else:
        out = layer.attend(query, attention_mask, scale)
    return out.transpose(1, 2), None


def padding_mask(
    batch_size: int, q_length: int, kv_length: int, attention_mask: torch.Tensor | None = None, **kwargs
) -> torch.Tensor | None:
    """What `paged_attention` takes for a mask: bool (B, kv_length), or None where nothing is padding.

    Causality needs no mask: what is cached lies in the past.
    """
    if not q_length:
        raise ConfigError("the prompt is empty; give the model at least one token")
    if attention_mask is None or bool(attention_mask.all()):
        return None
    if attention_mask.shape[1] != kv_length:
        raise ConfigError(
            f"the attention mask covers {attention_mask.shape[1]} tokens and the model has seen {kv_length}; it covers "
            "all tokens so far, evicted ones too"
        )
    return attention_mask


AttentionInterface.register(PAGED, paged_attention)
AttentionMaskInterface.register(PAGED, padding_mask)
