"""A model recorded by torch.export at fixed shapes, or the reason why a compiler cannot be given it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from icd_lib.errors import ResourceError
from icd_lib.kernels.mixer import doubling_scan
from icd_lib.models.export import as_tensors, main_output
from icd_lib.models.modes import evaluating
from icd_lib.optional import brief


class MainOutput(nn.Module):
    """Tensors in the order of `names` in, the model's main tensor out; no cache is kept."""

    def __init__(self, model: nn.Module, names: list[str]):
        super().__init__()
        self.model, self.names = model, names
        config = getattr(model, "config", None)
        self.more = {"use_cache": False} if getattr(config, "use_cache", None) is not None else {}

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return main_output(self.model(**dict(zip(self.names, tensors, strict=True)), **self.more))[1]


def record(model: nn.Module, inputs: dict, *, max_module_mb: int, dynamic_shapes=None) -> torch.export.ExportedProgram:
    """The model as a graph of operators at the shapes of `inputs`; parameters keep their names, after "model.".

    inputs: name → (B, L) tensor or array; a missing `attention_mask` is all ones. dynamic_shapes are refused.
    Raises `ResourceError` that names the tensor or the operator (with its source line) and the cure.
    """
    name = type(model).__name__
    if dynamic_shapes:
        raise ResourceError(
            f"{name} was to be exported with dynamic shapes {dynamic_shapes!r}; the bridge compiles fixed shapes: "
            "leave dynamic_shapes out and export once per shape"
        )
    check_numbers(model, max_module_mb)
    tensors = as_tensors(inputs)
    wrapped = MainOutput(model, list(tensors))
    try:
        with evaluating(wrapped), persistent_buffers(model), doubling_scan(model), torch.no_grad():
            program = torch.export.export(wrapped, tuple(tensors.values()))
    except Exception as error:  # the tracer's words for "not traceable" are many
        raise ResourceError(f"{name} cannot be recorded by torch.export: {brief(error)}") from error
    check_shapes(program, name)
    return program


def check_numbers(model: nn.Module, max_module_mb: int) -> None:
    """Raise `ResourceError` unless all weights are float32 (indices may be integers) and fit a compiler's module."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise ResourceError(
                f"weight {name} is {_dtype(tensor)}; the compilers take real numbers: give it as two real tensors"
            )
        if tensor.dtype in (torch.int8, torch.uint8) or tensor.is_quantized:
            raise ResourceError(
                f"weight {name} is {_dtype(tensor)}; the bridge compiles float32 models: take the model before it was "
                "quantised, or the runtime openvino_int8"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ResourceError(f"weight {name} is {_dtype(tensor)}; the bridge compiles float32: call model.float()")
        if tensor.device.type != "cpu":
            raise ResourceError(f"weight {name} is on {tensor.device}; the bridge compiles for the CPU: model.cpu()")
    held = sum(tensor.nbytes for tensor in tensors.values()) / 2**20
    if held > max_module_mb:
        raise ResourceError(
            f"{type(model).__name__} holds {held:.0f} MB of weights and a module may hold {max_module_mb} "
            "(bridge.max_module_mb); compile a smaller model, or parts of it"
        )


def check_shapes(program: torch.export.ExportedProgram, name: str) -> None:
    """Raise `ResourceError` where the shape of a value depends on the inputs' values."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool) or any(
            isinstance(size, torch.SymInt) for size in getattr(value, "shape", ())
        ):
            raise ResourceError(
                f"{name} has a dynamic shape: {node.target} at {source_line(node)} gives a size that depends on the "
                "inputs; the bridge compiles fixed shapes"
            )


def source_line(node: torch.fx.Node) -> str:
    """Where the model's own code made a node, as "modeling_bert.py:212".

    >>> source_line(torch.fx.Graph().placeholder("x"))
    'an unknown line'
    """
    lines = [line for line in (node.meta.get("stack_trace") or "").splitlines() if line.strip().startswith("File ")]
    if not lines:
        return "an unknown line"
    theirs = [line for line in lines if "/torch/" not in line]  # a Linear is called somewhere, that is the line
    _, path, rest = (theirs or lines)[-1].split('"', 2)
    return f"{Path(path).name}:{rest.split('line ', 1)[-1].split(',')[0].strip()}"


def lines_of(program: torch.export.ExportedProgram) -> dict[str, str]:
    """Operator ("aten.gelu") → the first source line that calls it."""
    found: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op == "call_function":
            found.setdefault(".".join(str(node.target).split(".")[:2]), source_line(node))
    return found


@contextmanager
def persistent_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers that a checkpoint leaves out (position ids) as weights like the others: torch-mlir knows one kind."""
    kept = [(module, set(module._non_persistent_buffers_set)) for module in model.modules()]
    try:
        for module, _ in kept:
            module._non_persistent_buffers_set.clear()
        yield
    finally:
        for module, names in kept:
            module._non_persistent_buffers_set.update(names)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
