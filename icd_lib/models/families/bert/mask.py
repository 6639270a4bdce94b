"""A BERT masked by `torch.nn.utils.prune`: whole neurons and heads, and single weights that no order gathers."""

import torch
from torch import nn
from torch.nn.utils import prune

from icd_lib.models.families.bert.adapter import find_encoder


def put_mask(model: nn.Module, *, neurons: float, heads: int, scattered: float) -> None:
    """Zero weights of every layer, in place; which ones follows from their sizes alone.

    neurons: share of the FFN neurons whose rows are zeroed, those of the least norm. Their biases stay, so that each
    still says the same thing for every text. heads: how many heads the attention's output no longer reads. scattered:
    share of the FFN's other weights that are zeroed one by one, those of the least size. At least one head stays.
    """
    for layer in find_encoder(model)[1].encoder.layer:
        up, down, out = layer.intermediate.dense, layer.output.dense, layer.attention.output.dense
        prune.ln_structured(up, "weight", neurons, n=2, dim=0)
        prune.custom_from_mask(out, "weight", _mask_of_heads(out, layer.attention.self.attention_head_size, heads))
        for linear in (up, down):
            prune.l1_unstructured(linear, "weight", scattered)
        for linear in (up, down, out):
            prune.remove(linear, "weight")


def _mask_of_heads(out: nn.Linear, size: int, heads: int) -> torch.Tensor:
    """1 where the weights (D, heads × size) stay: all columns but those of the `heads` heads of the least norm."""
    norms = out.weight.detach().reshape(out.out_features, -1, size).square().sum((0, 2))
    kept = torch.ones(len(norms))
    kept[norms.argsort(stable=True)[: min(heads, len(norms) - 1)]] = 0.0
    return kept.repeat_interleave(size).expand_as(out.weight).contiguous()
