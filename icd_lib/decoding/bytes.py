"""Bytes that generating one token moves, by arithmetic: the weights once a step, the cache of every text."""

import math

from torch import nn

from icd_lib.metric import Figure, figure
from icd_lib.models.families.llama.adapter import find_decoder
from icd_lib.models.families.mamba.adapter import find_backbone

_READ = ("weight", "bias", "A_log", "D")  # beside weights on a grid lie the grid's tensors, which no product reads


def weight_bytes_of(model: nn.Module) -> int:
    """Bytes of the float weights that a step reads: each once, but of an embedding that is no head only rows."""
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    skipped = {id(embedding)} if head is None or head.weight is not embedding else set()
    weights = (parameter for name, parameter in model.named_parameters() if name.rpartition(".")[2] in _READ)
    return sum(parameter.nbytes for parameter in weights if id(parameter) not in skipped)


def cache_bytes_of(model: nn.Module, bytes_per_number: float) -> float | None:
    """Bytes of a token of one text in the cache, keys and values of all layers: none where a state stands for the past.

    None for an unknown architecture.
    """
    if find_backbone(model) is not None:
        return 0.0
    found = find_decoder(model)
    if found is None:
        return None
    widths = (layer.self_attn.k_proj.out_features + layer.self_attn.v_proj.out_features for layer in found[1].layers)
    return sum(widths) * bytes_per_number


def state_bytes_of(model: nn.Module, bytes_per_number: float) -> float:
    """Bytes of one text's state, of scan and convolution in all layers; 0 for a model that keeps every token instead.

    bytes_per_number: of the convolution's last inputs; the scan's state is float32 whatever the weights are.
    """
    found = find_backbone(model)
    if found is None:
        return 0.0
    mixers = [layer.mixer for layer in found[1].layers]
    scans = sum(mixer.A_log.numel() for mixer in mixers)
    inputs = sum(mixer.conv1d.in_channels * mixer.conv_kernel_size for mixer in mixers)
    return 4.0 * scans + bytes_per_number * inputs


def bytes_per_token(
    weight_bytes: float, cache_bytes: float, batch: int, context: float, state_bytes: float = 0.0
) -> Figure:
    """Figure: bytes read for one token of one of `batch` texts that have `context` tokens each.

    weight_bytes / batch + cache_bytes · context + state_bytes: the batch shares the weights, a text's cache and state
    are its own.

    >>> bytes_per_token(1000, 10, batch=4, context=50).value
    750.0
    """
    if batch < 1 or not math.isfinite(context):
        raise ValueError(f"a batch has at least one text of finite length, got batch {batch}, context {context}")
    held = "cache" if not state_bytes else "state, whatever its length"
    method = f"weights once a step, shared by the batch, and the text's own {held}; caches of the processor not counted"
    return figure(weight_bytes / batch + cache_bytes * context + state_bytes, "bytes", "modelled", method=method)
