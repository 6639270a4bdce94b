"""Bytes that generating one token moves, by arithmetic: the weights once a step, the cache of every text."""

import math

from torch import nn

from icd_lib.metric import Figure, figure
from icd_lib.models.families.llama.adapter import find_decoder


def weight_bytes_of(model: nn.Module) -> int:
    """Bytes of the float weights that a step reads: each once, but of an embedding that is no head only rows."""
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    skipped = {id(embedding)} if head is None or head.weight is not embedding else set()
    named = model.named_parameters()  # beside weights on a grid lie the grid's tensors, which no product reads
    weights = (parameter for name, parameter in named if name.rpartition(".")[2] in ("weight", "bias"))
    return sum(parameter.nbytes for parameter in weights if id(parameter) not in skipped)


def cache_bytes_of(model: nn.Module, bytes_per_number: float) -> float | None:
    """Bytes of a token of one text in the cache, keys and values of all layers; None for an unknown architecture."""
    found = find_decoder(model)
    if found is None:
        return None
    widths = (layer.self_attn.k_proj.out_features + layer.self_attn.v_proj.out_features for layer in found[1].layers)
    return sum(widths) * bytes_per_number


def bytes_per_token(weight_bytes: float, cache_bytes: float, batch: int, context: float) -> Figure:
    """Figure: bytes read for one token of one of `batch` texts that have `context` tokens each.

    weight_bytes / batch + cache_bytes · context: the batch shares the weights, a text's cache is its own.

    >>> bytes_per_token(1000, 10, batch=4, context=50).value
    750.0
    """
    if batch < 1 or not math.isfinite(context):
        raise ValueError(f"a batch has at least one text of finite length, got batch {batch}, context {context}")
    method = "weights once a step, shared by the batch, and the text's own cache; caches of the processor not counted"
    return figure(weight_bytes / batch + cache_bytes * context, "bytes", "modelled", method=method)
