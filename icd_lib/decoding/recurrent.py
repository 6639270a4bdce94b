"""A Mamba as an OpenVINO graph that keeps its state: prompts of any length, and one token after the other.

Everything but the scan is traced, uneven widths included. The scan walks tokens one by one, which no tracer follows: a
TensorIterator takes the place of an input that stands for what it gives. Inputs: input_ids, attention_mask (B, L; of
the mask the last L columns count, a state knows no other places) and beam_idx (B,); output: logits (B, L, V). Variables
of each layer: the convolution's last inputs (B, inner, K − 1) and the scan's state (B, N, inner), float32.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import conv1d, linear, silu, softplus

from icd_lib.decoding.variables import keep_past, trace, unshared
from icd_lib.errors import ResourceError
from icd_lib.models.families.mamba.adapter import find_backbone
from icd_lib.optional import load_optional

INPUTS = ("input_ids", "attention_mask")
_TRACED = 2  # texts and tokens of the example
_READ = ("inputs", "steps", "enters", "leaves")  # what a scan reads: u, Δ (B, L, inner), B and C (B, L, N)


class _WithoutScan(nn.Module):
    """The model with every layer's last inputs and what its scan gave as inputs; what they become as outputs."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, *given):
        backbone = _backbone(self.model)
        valid = attention_mask[:, -input_ids.shape[1] :, None].to(torch.float32)
        hidden, found = backbone.embeddings(input_ids), []
        for layer, recent, scanned in zip(backbone.layers, given[0::2], given[1::2], strict=True):
            mixer = layer.mixer
            x, gate = mixer.in_proj(layer.norm(hidden) * valid).chunk(2, dim=-1)
            window = torch.cat([recent, x.transpose(1, 2)], dim=-1)
            mixed = conv1d(window, mixer.conv1d.weight, mixer.conv1d.bias, groups=mixer.conv1d.weight.shape[0])
            u = mixer.act(mixed).transpose(1, 2) * valid
            step, enters, leaves = mixer.x_proj(u).split(
                [mixer.time_step_rank, mixer.ssm_state_size, mixer.ssm_state_size], dim=-1
            )
            delta = softplus(linear(step, mixer.dt_proj.weight, mixer.dt_proj.bias))
            hidden = hidden + mixer.out_proj((scanned + u * mixer.D) * silu(gate))
            found += [window[..., 1 - mixer.conv_kernel_size :], u, delta, enters, leaves]
        return (self.model.lm_head(backbone.norm_f(hidden)), *found)


def recurrent_graph(model: nn.Module):
    """The `openvino.Model` of a Mamba with a language head; it shares the model's weights.

    Raises `ResourceError` without the package openvino, or where the model cannot be traced.
    """
    mixers = [layer.mixer for layer in _backbone(model).layers]
    if any(mixer.conv_kernel_size < 2 for mixer in mixers):
        raise ResourceError(
            f"{type(model).__name__} has convolutions of one tap, which keep nothing; decode it in eager"
        )
    ones = torch.ones(_TRACED, _TRACED, dtype=torch.int64)
    given = []
    for mixer in mixers:
        given.append(torch.zeros(_TRACED, mixer.conv1d.in_channels, mixer.conv_kernel_size - 1))
        given.append(torch.zeros(_TRACED, _TRACED, mixer.conv1d.in_channels))
    graph = trace(_WithoutScan(unshared(model)), (ones, ones, *given), type(model).__name__)
    _name(graph, mixers)
    for layer, mixer in enumerate(mixers):
        _put_scan(graph, layer, -torch.exp(mixer.A_log.detach().float()).numpy())
    graph.validate_nodes_and_infer_types()
    parts = [(layer, part) for layer in range(len(mixers)) for part in ("conv", "ssm")]
    keep_past(graph, {f"past.{layer}.{part}": f"present.{layer}.{part}" for layer, part in parts})
    return graph


def _backbone(model: nn.Module) -> nn.Module:
    found = find_backbone(model)
    assert found is not None, "whoever makes a graph has checked that it is a Mamba"
    return found[1]


def _name(graph, mixers: list[nn.Module]) -> None:
    """Give inputs and outputs their names and dynamic shapes."""
    openvino = load_optional("openvino")
    layers = range(len(mixers))
    names = [*INPUTS, *(f"{what}.{layer}" for layer in layers for what in ("recent", "scanned"))]
    names = [f"past.{name.split('.')[1]}.conv" if name.startswith("recent") else name for name in names]
    outputs = ["logits"]
    for layer in layers:
        outputs += [f"present.{layer}.conv", *(f"{what}.{layer}" for what in _READ)]
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
        shape = [-1, -1]
        if name not in INPUTS:
            mixer = mixers[int(name.split(".")[1])]
            width = mixer.conv1d.in_channels
            shape = [-1, -1, width] if name.startswith("scanned") else [-1, width, mixer.conv_kernel_size - 1]
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    for port, name in zip(graph.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    graph.validate_nodes_and_infer_types()


def _put_scan(graph, layer: int, rates: np.ndarray) -> None:
    """The scan of a layer in the place of the input that stood for it; its state as another input and output."""
    openvino = load_optional("openvino")
    from openvino import opset13 as ops

    width, states = rates.shape
    shape = openvino.PartialShape([-1, states, width])  # channels last: they are what a processor does at once
    before = ops.parameter(shape, dtype=np.float32, name=f"past.{layer}.ssm")
    before.output(0).get_tensor().set_names({f"past.{layer}.ssm"})
    results = [graph.output(f"{name}.{layer}").get_node() for name in _READ]
    sources = [result.input_value(0) for result in results]
    one = [
        ops.parameter(openvino.PartialShape([-1, 1, size]), dtype=np.float32) for size in (width, width, states, states)
    ]
    held = ops.parameter(shape, dtype=np.float32)
    u, delta, *selected = one
    column = ops.constant(np.array([0, states, 1], dtype=np.int64))
    enters, leaves = (ops.reshape(item, column, special_zero=True) for item in selected)
    decay = ops.exp(ops.multiply(delta, ops.constant(np.ascontiguousarray(rates.T)[None])))
    after = ops.add(ops.multiply(decay, held), ops.multiply(ops.multiply(u, delta), enters))
    given = ops.reduce_sum(ops.multiply(after, leaves), ops.constant(np.array([1], dtype=np.int64)), keep_dims=True)
    ends = [ops.result(after), ops.result(given)]
    scan = ops.tensor_iterator()
    scan.set_body(openvino.Model(ends, [*one, held], f"scan.{layer}"))
    for parameter, source in zip(one, sources, strict=True):
        scan.set_sliced_input(parameter, source, 0, 1, 1, -1, 1)
    scan.set_merged_input(held, before.output(0), ends[0].output(0))
    last = scan.get_iter_value(ends[0].output(0), -1)
    every = scan.get_concatenated_slices(ends[1].output(0), 0, 1, 1, -1, 1)
    stood = graph.input(f"scanned.{layer}")
    for reader in stood.get_target_inputs():
        reader.replace_source_output(every)
    for result in results:
        graph.remove_result(result)
    graph.remove_parameter(stood.get_node())
    last.get_tensor().set_names({f"present.{layer}.ssm"})
    kept = ops.result(last)
    graph.add_parameters([before])
    graph.add_results([kept])
