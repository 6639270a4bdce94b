"""Tiny random encoders, stock and compacted, that several test modules share."""

import torch
from torch import nn
from transformers import BertConfig, BertModel


def tiny_config(**changes) -> BertConfig:
    return BertConfig(
        vocab_size=97,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=80,
        max_position_embeddings=64,
        **changes,
    )


def tiny_bert(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    model = BertModel(tiny_config()).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return model


def shrink(linear: nn.Linear, rows: int | None = None, columns: int | None = None) -> nn.Linear:
    weight = linear.weight.data[:rows, :columns]
    smaller = nn.Linear(weight.shape[1], weight.shape[0])
    smaller.weight.data, smaller.bias.data = weight.clone(), linear.bias.data[:rows].clone()
    return smaller


def prune(model: BertModel, widths=(80, 33, 16), heads=(4, 2, 3)) -> BertModel:
    """Cut FFN widths and heads in place, unevenly over the layers, the way a compacted model is stored."""
    for layer, width, count in zip(model.encoder.layer, widths, heads, strict=True):
        layer.intermediate.dense = shrink(layer.intermediate.dense, rows=width)
        layer.output.dense = shrink(layer.output.dense, columns=width)
        attention = layer.attention.self
        kept = count * attention.attention_head_size
        for name in ("query", "key", "value"):
            setattr(attention, name, shrink(getattr(attention, name), rows=kept))
        layer.attention.output.dense = shrink(layer.attention.output.dense, columns=kept)
        attention.num_attention_heads, attention.all_head_size = count, kept
    return model.eval()


def batch(rows: int, length: int, seed: int = 1, padded: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.long)
    if padded:
        mask[0, length // 2 :] = 0
    return {"input_ids": torch.randint(0, 97, (rows, length), generator=generator), "attention_mask": mask}
