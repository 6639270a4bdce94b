"""A decoder as an OpenVINO graph that keeps its cache: the form that optimum-intel and OpenVINO GenAI load.

The graph is traced from the model as it is, uneven widths included, with the past of every layer as inputs and what it
becomes as outputs; those pairs are then made variables of the graph. Inputs: input_ids, attention_mask, position_ids
(B, L; the mask B, past + L), beam_idx (B,), which reorders the cached texts; output: logits (B, L, V). Batch and
lengths are dynamic.
"""

import numpy as np
import torch
from torch import nn

from icd_lib.decoding.base import check_decoder
from icd_lib.decoding.recurrent import recurrent_graph
from icd_lib.decoding.variables import keep_past, trace, unshared
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.models.cache.shape import decoder_layers, windows_of
from icd_lib.models.families.llama.adapter import find_decoder
from icd_lib.models.families.mamba.adapter import find_backbone
from icd_lib.models.quantized import quantized_linears
from icd_lib.optional import load_optional

INPUTS = ("input_ids", "attention_mask", "position_ids")
_TRACED = 2  # texts, tokens, and tokens before them in the example; not 1, which code of models treats apart


class _Past:
    """A cache whose past is given and whose present is read: what a tracer can follow."""

    def __init__(self, past: list[tuple[torch.Tensor, torch.Tensor]]):
        self._past = past
        self.present: list[torch.Tensor] = [None] * (2 * len(past))

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_, **__):
        both = [torch.cat(pair, dim=-2) for pair in zip(self._past[layer], (keys, values), strict=True)]
        self.present[2 * layer : 2 * layer + 2] = both
        return both

    def get_seq_length(self, _layer: int = 0):
        return self._past[0][0].shape[-2]


class _WithPast(nn.Module):
    """The model with a mask of our own (any mask of four dims is taken as it is) and its cache as tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, position_ids, *past):
        cache = _Past(list(zip(past[0::2], past[1::2], strict=True)))
        keys = torch.arange(attention_mask.shape[1])
        queries = torch.arange(input_ids.shape[1]) + cache.get_seq_length()
        seen = (keys[None] <= queries[:, None])[None, None] & (attention_mask > 0)[:, None, None]
        hidden = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
        logits = self.model(
            input_ids=input_ids,
            attention_mask=hidden,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return (logits, *cache.present)


def check_graph(model: nn.Module) -> None:
    """Raise `ConfigError` or `ResourceError` for a model that has no such graph."""
    check_decoder(model)
    recurrent = find_backbone(model) is not None
    if find_decoder(model) is None and not recurrent:
        raise ResourceError(
            f"{type(model).__name__} cannot be exported with its cache: it is not built like transformers.LlamaModel, "
            "nor like transformers.MambaModel"
        )
    if not recurrent and (sliding := windows_of(model)):
        raise ResourceError(
            f"{type(model).__name__} has {len(sliding)} layers of sliding_attention over {sliding[0]} tokens; graphs "
            "are made for full attention: decode it in eager"
        )
    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        raise ResourceError(
            f"{type(model).__name__} has rotary embeddings of type {rope['rope_type']}, which change with the "
            "text's length; a graph has fixed ones: decode it in eager"
        )
    rounded = quantized_linears(model)
    if rounded:
        raise ResourceError(
            f"{next(iter(rounded))} rounds its inputs to 8 bits, which no graph with a cache is made for; quantise the "
            "weights alone (icd_lib.transforms.weights)"
        )
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    others = {str(dtype).removeprefix("torch.") for dtype in dtypes} - {"float32"}
    if others:
        raise ConfigError(
            f"{type(model).__name__} has {', '.join(sorted(others))} weights; a graph is made of float32 ones: "
            "pass model.float()"
        )


def stateful_graph(model: nn.Module):
    """The `openvino.Model`; it shares the model's weights, which must not be changed while it is in use.

    Of a model with a state instead of a past it is `recurrent_graph`. Raises as `check_graph` does, and `ResourceError`
    without the package openvino or where the model cannot be traced.
    """
    check_graph(model)
    if find_backbone(model) is not None:
        return recurrent_graph(model)
    openvino = load_optional("openvino", "'icd-lib[runtimes]'")
    layers, _ = decoder_layers(model)
    shapes = [(layer.self_attn.k_proj.out_features, layer.self_attn.head_dim) for layer in layers]
    past = [torch.zeros(_TRACED, width // size, _TRACED, size) for width, size in shapes for _ in ("keys", "values")]
    ones = torch.ones(_TRACED, 2 * _TRACED, dtype=torch.int64)
    example = (ones[:, :_TRACED], ones, torch.arange(_TRACED)[None].repeat(_TRACED, 1) + _TRACED, *past)
    graph = trace(_WithPast(unshared(model)), example, type(model).__name__)
    _name(openvino, graph, [(width // size, size) for width, size in shapes])
    parts = [(layer, part) for layer in range(len(shapes)) for part in ("key", "value")]
    keep_past(graph, {f"past_key_values.{layer}.{part}": f"present.{layer}.{part}" for layer, part in parts})
    return graph


def _name(openvino, graph, sizes: list[tuple[int, int]]) -> None:
    """Give inputs and outputs the names and the dynamic shapes by which others know them."""
    names = [*INPUTS, *(f"past_key_values.{layer}.{part}" for layer in range(len(sizes)) for part in ("key", "value"))]
    outputs = ["logits", *(f"present.{layer}.{part}" for layer in range(len(sizes)) for part in ("key", "value"))]
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
        if name in INPUTS:
            shape = [-1, -1]
        else:
            heads, size = sizes[int(name.split(".")[1])]
            shape = [-1, heads, -1, size]
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    for port, name in zip(graph.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()


def last_token_only(graph):
    """A copy of the graph whose logits are those of the last token alone, (B, 1, V): a prompt's others are not made."""
    from openvino import opset13 as ops

    graph = graph.clone()
    node = graph.output("logits").get_node().input_value(0).get_node()
    while node.get_type_name() not in ("MatMul", "Parameter"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "MatMul":
        raise ResourceError("the graph's logits come from no product by a head; decode the model in eager")
    hidden = node.input_value(0)
    last = ops.slice(
        hidden,
        ops.constant(np.array([-1], dtype=np.int64)),
        ops.constant(np.array([np.iinfo(np.int64).max], dtype=np.int64)),
        ops.constant(np.array([1], dtype=np.int64)),
        ops.constant(np.array([1], dtype=np.int64)),
    )
    node.input(0).replace_source_output(last.output(0))
    graph.validate_nodes_and_infer_types()
    return graph


def constant_bytes(graph) -> int:
    """Bytes of the graph's constants in matrices: its weights, as they are stored."""
    return sum(
        operation.get_byte_size()
        for operation in graph.get_ops()
        if operation.get_type_name() == "Constant" and len(operation.get_output_shape(0)) > 1
    )
