"""Access graph of a module's tensors: parameters and activations that its operations touch together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from icd_lib.errors import ConfigError
from icd_lib.graph.contract import check_w
from icd_lib.graph.normalize import normalize_graph
from icd_lib.graph.sparsify import build_symmetric, cap_edges

_KINDS = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
    InputKind.USER_INPUT: "input",
}


@dataclass
class _Trace:
    """Tensors by the memory they lie in, and what each operation reads and writes, in the order of execution."""

    names: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    nbytes: list[int] = field(default_factory=list)
    reads: list[list[int]] = field(default_factory=list)
    writes: list[list[int]] = field(default_factory=list)
    element_of_storage: dict[int, int] = field(default_factory=dict)

    def add(self, tensor: torch.Tensor, name: str, kind: str) -> int:
        self.names.append(name)
        self.kinds.append(kind)
        self.nbytes.append(int(tensor.numel()) * tensor.element_size())
        self.element_of_storage[_storage(tensor)] = len(self.names) - 1
        return len(self.names) - 1


def module_graph(
    source,
    example_inputs=None,
    *,
    hops: int = 2,
    decay: float = 0.5,
    byte_weight: float = 1.0,
    nnz_cap: int = 200_000,
    normalize: str = "none",
) -> sp.csr_array:
    """W, csr_array (D, D), over the D tensors of a module: parameters, buffers, inputs, then activations as they arise.

    source: an `nn.Module` (a `torch.fx.GraphModule` is one) with `example_inputs` (dict of keyword arguments, tuple of
    positional ones, or a tensor), traced by torch.export, or an `ExportedProgram`. Tensors that share memory (views,
    in-place results, tied weights) are one element. With operations numbered t in the order of execution,

    W_ij = min(bytes_i, bytes_j)^byte_weight * (number of t that touch both + sum over t < t' of decay^(t' - t) for i
    touched by t and j by t', and again for the reverse, where t' is reached from t by fewer than `hops` steps from an
    operation to one that reads its result).

    t' - t is the reuse distance in operations. hops = 1 counts operations alone, byte_weight = 0 counts touches instead
    of bytes. Raises `ConfigError` when the module cannot be traced or a setting is out of range.
    """
    settings: dict[str, Any] = {"hops": hops, "decay": decay, "byte_weight": byte_weight, "nnz_cap": nnz_cap}
    return check_w(normalize_graph(build_module(source, example_inputs, **settings)[0], normalize))


def build_module(
    source, example_inputs=None, *, hops: int = 2, decay: float = 0.5, byte_weight: float = 1.0, nnz_cap: int = 200_000
) -> tuple[sp.csr_array, dict]:
    """As `module_graph`, without normalization and with metadata; its `elements` name each tensor, kind and bytes."""
    _check_settings(hops, decay, byte_weight)
    trace = _trace_program(_export(source, example_inputs))
    W, meta = cap_edges(_weigh(trace, hops, decay, byte_weight), nnz_cap)
    columns = zip(trace.names, trace.kinds, trace.nbytes, strict=True)
    meta["elements"] = [{"name": name, "kind": kind, "bytes": count} for name, kind, count in columns]
    return W, {**meta, "operations": len(trace.reads), "hops": hops, "decay": decay, "byte_weight": byte_weight}


def _export(source, example_inputs) -> ExportedProgram:
    if isinstance(source, ExportedProgram):
        return source
    if not isinstance(source, nn.Module):
        raise ConfigError(f"a module graph is built from an nn.Module or ExportedProgram, got {type(source).__name__}")
    if example_inputs is None:
        raise ConfigError(f"tracing {type(source).__name__} needs example_inputs: a dict, a tuple or a tensor")
    args, kwargs = (), {}
    if isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    else:
        args = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    try:
        return torch.export.export(source, args, kwargs)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"torch.export cannot trace {type(source).__name__}: {reason}; check example_inputs, or give an "
            "ExportedProgram made with the settings that the module needs"
        ) from error


def _trace_program(program: ExportedProgram) -> _Trace:
    trace, tied = _Trace(), {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        tensors = _tensors(node)
        if node.op == "placeholder" and tensors:
            spec = specs[node.name]
            real = program.state_dict.get(spec.target)
            memory = node.name if real is None else (_storage(real), real.storage_offset(), real.shape)
            if memory in tied:
                trace.element_of_storage[_storage(tensors[0])] = tied[memory]
            else:
                tied[memory] = trace.add(tensors[0], spec.target or node.name, _KINDS.get(spec.kind, "input"))
        elif node.op == "get_attr" and tensors:
            trace.add(tensors[0], str(node.target), "constant")
        elif node.op == "call_function" and tensors:
            _add_operation(trace, node, tensors)
    if not trace.names:
        raise ConfigError("the traced program touches no tensor; check the module and its example_inputs")
    return trace


def _add_operation(trace: _Trace, node: torch.fx.Node, tensors: list[torch.Tensor]) -> None:
    reads = [trace.element_of_storage[_storage(t)] for source in node.all_input_nodes for t in _tensors(source)]
    fresh = [t for t in tensors if _storage(t) not in trace.element_of_storage]
    in_place = _written_in_place(trace, node)
    if not fresh and not in_place:
        return  # a view moves no bytes
    names = [node.name] if len(fresh) == 1 else [f"{node.name}.{k}" for k in range(len(fresh))]
    written = [trace.add(tensor, name, "activation") for tensor, name in zip(fresh, names, strict=True)]
    trace.reads.append(sorted(set(reads)))
    trace.writes.append(sorted({*written, *in_place}))


def _written_in_place(trace: _Trace, node: torch.fx.Node) -> list[int]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    written = []
    for index, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = node.args[index] if index < len(node.args) else node.kwargs.get(argument.name)
            if isinstance(value, torch.fx.Node):
                written += [trace.element_of_storage[_storage(tensor)] for tensor in _tensors(value)]
    return written


def _tensors(node: torch.fx.Node) -> list[torch.Tensor]:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return [tensor for tensor in values if isinstance(tensor, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _weigh(trace: _Trace, hops: int, decay: float, byte_weight: float) -> sp.csr_array:
    operations, D = len(trace.reads), len(trace.names)
    touches = _incidence([{*r, *w} for r, w in zip(trace.reads, trace.writes, strict=True)], D)
    produces, consumes = _incidence(trace.writes, D), _incidence(trace.reads, D)
    # An operation feeds the later ones that read what it wrote.
    feeds = sp.triu(produces @ consumes.T, 1).astype(bool).astype(np.int64).tocsr()
    reach = frontier = sp.eye_array(operations, dtype=np.int64, format="csr")
    for _ in range(hops - 1):
        frontier = (frontier @ feeds).astype(bool).astype(np.int64)
        reach = (reach + frontier).astype(bool).astype(np.int64)
    earlier, later = sp.triu(reach, 1).nonzero()
    joined = sp.csr_array((float(decay) ** (later - earlier), (earlier, later)), shape=reach.shape)
    within, across = sp.triu(touches.T @ touches, 1).tocoo(), (touches.T @ joined @ touches).tocoo()
    low = np.concatenate([within.coords[0], np.minimum(*across.coords)])
    high = np.concatenate([within.coords[1], np.maximum(*across.coords)])
    counts = np.concatenate([within.data, across.data])
    apart = low < high
    low, high, counts = low[apart], high[apart], counts[apart]
    nbytes = np.array(trace.nbytes, dtype=np.float64)
    edges = build_symmetric(low, high, counts, D)
    rows = np.repeat(np.arange(D), np.diff(edges.indptr))
    edges.data *= np.minimum(nbytes[rows], nbytes[edges.indices]) ** byte_weight
    edges.eliminate_zeros()
    return edges


def _incidence(sets, D: int) -> sp.csr_array:
    columns = [element for members in sets for element in sorted(members)]
    indptr = np.cumsum([0] + [len(members) for members in sets])
    return sp.csr_array((np.ones(len(columns)), columns, indptr), shape=(len(sets), D))


def _check_settings(hops, decay, byte_weight) -> None:
    if isinstance(hops, bool) or not isinstance(hops, int | np.integer) or hops < 1:
        raise ConfigError(f"hops is an integer >= 1 (1: within one operation), got {hops!r}")
    for name, value, most in (("decay", decay, 1), ("byte_weight", byte_weight, np.inf)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= most:
            raise ConfigError(f"{name} is a number in [0, {most}], got {value!r}")
