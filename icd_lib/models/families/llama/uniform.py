"""Pad a pruned decoder back to shapes that stock Transformers can describe, without changing its function."""

import torch
from torch import nn
from torch.nn.functional import pad

from icd_lib.axes.vocab import fold_token_maps
from icd_lib.models.families.llama.adapter import find_decoder


def pad_to_uniform(model: nn.Module) -> None:
    """Give `model` stock shapes in place: every FFN as wide as the widest, as many KV groups as the layer with most.

    Zero rows write zeros and zero columns read nothing, so the outputs are the same up to summation order. Token-id
    maps are folded into the rows. The config gets the new sizes.
    """
    layers, config = find_decoder(model)[1].layers, model.config
    widest = max(layer.mlp.down_proj.in_features for layer in layers)
    most = max(layer.self_attn.k_proj.out_features // layer.self_attn.head_dim for layer in layers)
    per_group = layers[0].self_attn.num_key_value_groups
    while config.hidden_size % (most * per_group):  # what a config must fulfil; the unpruned number does
        most += 1
    with torch.no_grad():
        for layer in layers:
            _pad_ffn(layer.mlp, widest)
            _pad_groups(layer.self_attn, most)
        fold_token_maps(model)
    config.head_dim = layers[0].self_attn.head_dim
    config.intermediate_size, config.num_key_value_heads = widest, most
    config.num_attention_heads = most * per_group


def _pad_ffn(mlp: nn.Module, widest: int) -> None:
    for linear in (mlp.gate_proj, mlp.up_proj):
        _pad_rows(linear, widest)
    _pad_columns(mlp.down_proj, widest)


def _pad_groups(attention: nn.Module, most: int) -> None:
    size, per_group = attention.head_dim, attention.num_key_value_groups
    _pad_rows(attention.q_proj, most * per_group * size)
    for linear in (attention.k_proj, attention.v_proj):
        _pad_rows(linear, most * size)
    _pad_columns(attention.o_proj, most * per_group * size)


def _pad_rows(linear: nn.Linear, rows: int) -> None:
    missing = rows - linear.out_features
    _set(linear, "weight", pad(linear.weight, (0, 0, 0, missing)))
    if linear.bias is not None:
        _set(linear, "bias", pad(linear.bias, (0, missing)))
    linear.out_features = rows


def _pad_columns(linear: nn.Linear, columns: int) -> None:
    _set(linear, "weight", pad(linear.weight, (0, columns - linear.in_features)))
    linear.in_features = columns


def _set(linear: nn.Linear, name: str, value: torch.Tensor) -> None:
    old = getattr(linear, name)
    setattr(linear, name, nn.Parameter(value.contiguous(), requires_grad=old.requires_grad))
