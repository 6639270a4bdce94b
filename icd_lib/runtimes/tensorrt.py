"""TensorRT through ONNX Runtime on an NVIDIA device, in fp16, where that package has the provider.

Half precision alone: ONNX Runtime cannot tell TensorRT to leave TF32, so what would be called fp32 there is none
(github.com/microsoft/onnxruntime/issues/26029). The precision is in the file, written by ONNX Runtime's own converter,
so that versions of TensorRT whose networks are typed and those that take a flag compute the same.
"""

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from icd_lib.errors import ResourceError
from icd_lib.models.export import as_tensors, export_onnx
from icd_lib.optional import load_optional
from icd_lib.runtimes.cuda import DTYPES, OnDevice, PreparedOnDevice
from icd_lib.storage.devices import telling_of_memory

PROVIDER, CUDA_PROVIDER, CPU_PROVIDER = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
INSTALL = "pip uninstall onnxruntime, then pip install onnxruntime-gpu tensorrt"


class PreparedEngine(PreparedOnDevice):
    """A session of ONNX Runtime whose inputs and output are torch's memory; an engine is built for every new shape."""

    def __init__(self, session, model: nn.Module, precision: str, device: torch.device, stream):
        """stream: torch's, on which the session computes; None on a CPU."""
        self.session, self.model, self.precision, self.device, self.stream = session, model, precision, device, stream
        self.memory_bytes = None  # the engine does not say

    def enqueue(self, inputs: dict) -> Callable[[], torch.Tensor]:
        session, device, stream = self.session, self.device, self.stream
        binding, held = session.io_binding(), self.on_device(inputs)
        options = load_optional("onnxruntime").RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # who asked waits for the device
        where = (self.device.type, self.device.index or 0)
        for item in session.get_inputs():
            tensor = held[item.name]
            binding.bind_input(item.name, *where, "int64", tuple(tensor.shape), tensor.data_ptr())
        (output,) = session.get_outputs()
        sizes = dict(zip(session.get_inputs()[0].shape, next(iter(held.values())).shape, strict=True))
        found = torch.empty([sizes.get(size, size) for size in output.shape], device=self.device)
        binding.bind_output(output.name, *where, "float32", tuple(found.shape), found.data_ptr())

        def start(_held: dict = held) -> torch.Tensor:
            """Whoever holds this call holds the inputs that the session reads."""
            if stream is not None:
                stream.wait_stream(torch.cuda.current_stream(device))
            session.run_with_iobinding(binding, options)
            if stream is not None:
                torch.cuda.current_stream(device).wait_stream(stream)
            return found

        return start

    def on_device(self, inputs: dict) -> dict:
        """Copies of the inputs on the device, with the mask that the graph reads."""
        return {name: tensor.to(self.device, copy=True).contiguous() for name, tensor in as_tensors(inputs).items()}

    @property
    def judged(self) -> nn.Module:
        """The model in the row's precision, as eager computes it: an engine for every shape of a text is not built."""
        return copy.deepcopy(self.model).eval().to(self.device, DTYPES[self.precision])

    def close(self) -> None:
        self.session = self.model = None


@dataclass(frozen=True)
class TensorRt(OnDevice):
    from_onnx: ClassVar[bool] = True

    def check(self) -> None:
        super().check()
        onnxruntime = load_optional("onnxruntime", "onnxruntime-gpu")
        if torch.device(self.device).type == "cuda" and PROVIDER not in onnxruntime.get_available_providers():
            raise ResourceError(
                f"{self.name}: onnxruntime {onnxruntime.__version__} as installed has no TensorRT; {INSTALL}"
            )

    def prepare(
        self,
        model: nn.Module,
        example_inputs: dict,
        *,
        workdir: Path | str | None = None,
        onnx_path: Path | str | None = None,
        **_,
    ) -> PreparedEngine:
        self.check()
        on_cpu = model if next(model.parameters()).device.type == "cpu" else copy.deepcopy(model).cpu()
        path = Path(onnx_path or export_onnx(on_cpu.eval(), example_inputs, Path(workdir) / "model.onnx"))
        device = torch.device(self.device)
        told = telling_of_memory(f"{self.name} made a model ready", "measure smaller shapes (measure.shapes)")
        with self.refusals(model), told:
            stream = torch.cuda.Stream(device) if device.type == "cuda" else None
            session = self.session(in_half(path, path.with_suffix(".fp16.onnx")), device, stream)
            prepared = PreparedEngine(session, model, self.precision, device, stream)
            prepared.warm(example_inputs)
        return prepared

    def session(self, path: Path, device: torch.device, stream):
        """The file, ready to run there; `ResourceError` where the provider does not load, instead of a slower one."""
        onnxruntime = load_optional("onnxruntime", "onnxruntime-gpu")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        wanted: dict[str, dict] = {CPU_PROVIDER: {}}
        if device.type == "cuda":
            if importlib.util.find_spec("tensorrt") is not None:
                load_optional("tensorrt")  # its import loads the libraries that the provider is linked with
            there = {"device_id": device.index or 0, "user_compute_stream": str(stream.cuda_stream)}
            wanted = {PROVIDER: {**there, "trt_fp16_enable": True}, CUDA_PROVIDER: there}
        session = onnxruntime.InferenceSession(str(path), options, providers=list(wanted.items()))
        if session.get_providers()[0] != next(iter(wanted)):
            raise ResourceError(
                f"{self.name}: ONNX Runtime could not load TensorRT's libraries and fell back to "
                f"{session.get_providers()[0]}; pip install a tensorrt of the version that this onnxruntime names"
            )
        return session


def in_half(path: Path, target: Path) -> Path:
    """Write the graph with its numbers in fp16, outputs in fp32; returns `target`."""
    onnx = load_optional("onnx")
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(str(path)), keep_io_types=True), str(target))
    return target


FP16 = TensorRt(
    "cuda_tensorrt_fp16",
    "TensorRT through ONNX Runtime on CUDA, fp16, one engine per shape",
    precision="fp16",
    tolerance=0.02,
    needs=("onnxruntime", "onnx"),
)
