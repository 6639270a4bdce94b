"""Pad a pruned BERT back to shapes that stock Transformers can describe, without changing its function."""

import torch
from torch import nn
from torch.nn.functional import pad

from icd_lib.axes.vocab import fold_token_maps


def pad_to_uniform(model: nn.Module, layers: nn.ModuleList) -> None:
    """Give `model` stock shapes in place: every FFN as wide as the widest, removed heads and head dims back as zeros.

    Zero rows write zeros and zero columns read nothing, so the outputs are the same up to summation order. Token-id
    maps are folded into the rows; what is tied stays tied. `config.intermediate_size` becomes the widest layer's.
    layers: the encoder's.
    """
    config = model.config
    heads, dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    widest = max(layer.intermediate.dense.out_features for layer in layers)
    with torch.no_grad():
        for layer in layers:
            _pad_heads(layer.attention, heads, dim)
            _pad_ffn(layer, widest - layer.intermediate.dense.out_features)
        fold_token_maps(model)
    config.intermediate_size = widest


def _pad_ffn(layer: nn.Module, missing: int) -> None:
    _set(layer.intermediate.dense, lambda w: pad(w, (0, 0, 0, missing)), lambda b: pad(b, (0, missing)))
    _set(layer.output.dense, lambda w: pad(w, (0, missing)))


def _pad_heads(attention: nn.Module, heads: int, dim: int) -> None:
    """Pad (h, d) blocks to (heads, dim); a kept softmax scale other than dim^-1/2 moves into the queries."""
    inner = attention.self
    size = inner.attention_head_size
    count = inner.query.out_features // size
    blocks, lost_dims, lost_heads = (count, size), dim - size, heads - count

    def rows(weight: torch.Tensor) -> torch.Tensor:
        padded = pad(weight.unflatten(0, blocks), (0, 0, 0, lost_dims, 0, lost_heads))
        return padded.flatten(0, 1)

    def bias(vector: torch.Tensor) -> torch.Tensor:
        return pad(vector.unflatten(0, blocks), (0, lost_dims, 0, lost_heads)).flatten()

    ratio = inner.scaling * dim**0.5
    if abs(ratio - 1) > 1e-9:
        _set(inner.query, lambda w: w * ratio, lambda b: b * ratio)
    for linear in (inner.query, inner.key, inner.value):
        _set(linear, rows, bias)
    _set(
        attention.output.dense,
        lambda w: pad(w.unflatten(1, blocks), (0, lost_dims, 0, lost_heads)).flatten(1, 2),
    )
    inner.num_attention_heads, inner.attention_head_size, inner.all_head_size = heads, dim, heads * dim
    inner.scaling = dim**-0.5


def _set(linear: nn.Linear, weight, bias=None) -> None:
    """Replace a Linear's tensors by functions of them, and its recorded sizes."""
    linear.weight = nn.Parameter(weight(linear.weight).contiguous(), requires_grad=linear.weight.requires_grad)
    if bias is not None and linear.bias is not None:
        linear.bias = nn.Parameter(bias(linear.bias).contiguous(), requires_grad=linear.bias.requires_grad)
    linear.out_features, linear.in_features = linear.weight.shape
