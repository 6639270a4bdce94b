"""PyTorch on an NVIDIA device: eager, compiled, and as a CUDA graph, in fp32, bf16 and fp16.

A row prepares a copy of the model on the device; the given one stays where it is. fp32 is fp32: torch's TF32 is left
off, as it is by default.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import numpy as np
import torch
from torch import nn

from icd_lib.errors import ResourceError
from icd_lib.models.export import main_output
from icd_lib.optional import brief
from icd_lib.runtimes.base import Prepared, Runtime
from icd_lib.runtimes.compile import APART, compiling
from icd_lib.runtimes.compile import RUNTIME as COMPILE
from icd_lib.storage.devices import telling_of_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WARM_UPS = 3  # calls on a side stream before a capture, in which libraries choose their kernels and take their memory


class PreparedOnDevice(Prepared):
    """A module on a device; `enqueue` gives work to the device without waiting for it."""

    def __init__(self, module: nn.Module, device: torch.device):
        self.module, self.device = module, device
        self.memory_bytes = sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])

    def enqueue(self, inputs: dict) -> Callable[[], torch.Tensor]:
        """A call that starts the model on these inputs, copied to the device now, and returns without waiting.

        The tensor it returns, the model's main output, may be written to by the next call.
        """
        held, module = self.on_device(inputs), self.module

        def start() -> torch.Tensor:
            with torch.no_grad():
                return main_output(module(**held))[1]

        return start

    def run(self, inputs: dict) -> np.ndarray:
        return self.enqueue(inputs)().float().cpu().numpy().copy()

    def call(self, inputs: dict) -> Callable[[], object]:
        start = self.enqueue(inputs)

        def call_and_wait() -> torch.Tensor:
            output = start()
            self.synchronise()
            return output

        return call_and_wait

    @property
    def judged(self) -> nn.Module:
        """The module in the row's precision, as eager computes it: a graph for every shape of a text is not made."""
        return self.module

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def close(self) -> None:
        self.module = None

    def on_device(self, inputs: dict) -> dict:
        """Copies of the inputs on the device; a mask of ones is left out, so that no padding has to be looked for.

        What is no tensor or array stays what it is: a model that branches on a flag would wait for the device else.
        """
        flags = {name: value for name, value in inputs.items() if not isinstance(value, torch.Tensor | np.ndarray)}
        tensors = {name: torch.as_tensor(value) for name, value in inputs.items() if name not in flags}
        mask = tensors.get("attention_mask")
        if mask is not None and bool(mask.all()):
            del tensors["attention_mask"]
        return {name: tensor.to(self.device, copy=True) for name, tensor in tensors.items()} | flags


class PreparedCompiledOnDevice(PreparedOnDevice):
    @property
    def judged(self) -> nn.Module:
        return self.module._orig_mod

    def warm(self, inputs: dict) -> None:
        with compiling():
            self.run(inputs)


class PreparedGraph(PreparedOnDevice):
    """One CUDA graph for each set of names and shapes, captured when the first inputs of that set come."""

    def __init__(self, module: nn.Module, device: torch.device):
        super().__init__(module, device)
        self._graphs: dict[tuple, tuple] = {}

    def enqueue(self, inputs: dict) -> Callable[[], torch.Tensor]:
        held = self.on_device(inputs)
        key = tuple((name, *_kind(value)) for name, value in sorted(held.items()))
        if key not in self._graphs:
            self._graphs[key] = self._capture(held)
        graph, static, output = self._graphs[key]
        tensors = {name: value for name, value in held.items() if isinstance(value, torch.Tensor)}

        def start(_weights: nn.Module = self.module) -> torch.Tensor:
            """Whoever holds this call holds the weights too: the graph reads them where they are."""
            for name, tensor in tensors.items():
                static[name].copy_(tensor)
            graph.replay()
            return output

        return start

    def _capture(self, held: dict) -> tuple:
        """The graph, the buffers that it reads beside the module's weights, and the one that it writes."""
        static = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in held.items()}
        try:
            with torch.no_grad():
                side, graph = torch.cuda.Stream(self.device), torch.cuda.CUDAGraph()
                side.wait_stream(torch.cuda.current_stream(self.device))
                # A capture that fails leaves its stream as the current one; this block does not.
                with torch.cuda.stream(side), one_text_a_row(static):
                    for _ in range(WARM_UPS):
                        self.module(**static)
                    with torch.cuda.graph(graph, stream=side):
                        output = main_output(self.module(**static))[1]
                torch.cuda.current_stream(self.device).wait_stream(side)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # a model that reads a result on the CPU cannot be captured
            raise ResourceError(f"{type(self.module).__name__} cannot be a CUDA graph: {brief(error)}") from error
        return graph, static, output

    def close(self) -> None:
        super().close()
        self._graphs.clear()


@contextmanager
def one_text_a_row(inputs: dict) -> Iterator[None]:
    """Within, Transformers takes it that no row holds several texts in a line, which without `position_ids` none does.

    Eager looks whether one does. A capture cannot look, so it would get a mask of all pairs in each layer, and with it
    other kernels than eager's.
    """
    from transformers import masking_utils

    name = "find_packed_sequence_indices"
    if "position_ids" in inputs or not hasattr(masking_utils, name):
        yield
        return
    with patch.object(masking_utils, name, lambda position_ids: None):
        yield


def _kind(value) -> tuple:
    """What a graph is captured for: shape and type of a tensor, of anything else the value."""
    return (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else (value,)


def check_cuda(name: str, device: str) -> None:
    """Raise `ResourceError` where the row `name` is to compute on a CUDA device and torch can use none."""
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            f"{name}: no CUDA device that torch {torch.__version__} can use; install a CUDA build of torch on "
            "a machine with an NVIDIA device, or choose a runtime of the CPU"
        )


@dataclass(frozen=True)
class OnDevice(Runtime):
    """`device`: where the copy goes, as torch names it."""

    device: str = "cuda"

    @property
    def engine(self) -> str:
        return self.name.removesuffix(f"_{self.precision}")

    def check(self) -> None:
        super().check()
        check_cuda(self.name, self.device)

    def prepare(self, model: nn.Module, example_inputs: dict, **_) -> PreparedOnDevice:
        self.check()
        with telling_of_memory(f"{self.name} made a model ready", "measure smaller shapes (measure.shapes)"):
            copied = copy.deepcopy(model).eval().to(self.device, DTYPES[self.precision])
            prepared = self.open(copied, torch.device(self.device))
            prepared.warm(example_inputs)
        return prepared

    def open(self, module: nn.Module, device: torch.device) -> PreparedOnDevice:
        """A module that is on the device already, ready to run."""
        return PreparedOnDevice(module, device)


class CompiledOnDevice(OnDevice):
    def check(self) -> None:
        super().check()
        COMPILE.check()

    def reset(self) -> None:
        COMPILE.reset()

    def open(self, module: nn.Module, device: torch.device) -> PreparedOnDevice:
        return PreparedCompiledOnDevice(torch.compile(module, dynamic=False, **APART), device)


class GraphOnDevice(OnDevice):
    def open(self, module: nn.Module, device: torch.device) -> PreparedOnDevice:
        return PreparedGraph(module, device)


# Largest difference to eager on a CPU that is rounding, for outputs of a size around one.
_ROUNDING = {"fp32": 1e-4, "bf16": 0.15, "fp16": 0.02}
_FORMS = (
    ("cuda_eager", "PyTorch eager on CUDA", OnDevice),
    ("cuda_compile", "torch.compile (Inductor) on CUDA, one graph per shape", CompiledOnDevice),
    ("cuda_graph", "PyTorch eager, replayed as a CUDA graph", GraphOnDevice),
)


def cuda_runtimes() -> dict[str, OnDevice]:
    """The rows, name → row: each form in each precision ("cuda_graph_bf16"); fp32 goes without a suffix."""
    rows = {}
    for form, label, kind in _FORMS:
        for precision, tolerance in _ROUNDING.items():
            name = form if precision == "fp32" else f"{form}_{precision}"
            rows[name] = kind(name, f"{label}, {precision}", precision=precision, tolerance=tolerance)
    return rows


EAGER, EAGER_BF16, EAGER_FP16, COMPILED, COMPILED_BF16, COMPILED_FP16, GRAPH, GRAPH_BF16, GRAPH_FP16 = (
    cuda_runtimes().values()
)
