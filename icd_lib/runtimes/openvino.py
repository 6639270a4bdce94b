"""OpenVINO on the CPU: in fp32, in bf16, and in int8 by NNCF's post-training quantization."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.models.export import as_arrays
from icd_lib.models.quantized import has_eight_bits
from icd_lib.optional import brief, load_optional
from icd_lib.runtimes.base import Prepared, Users
from icd_lib.runtimes.emulation import emulated
from icd_lib.runtimes.ir import save_ir
from icd_lib.runtimes.onnx_based import OnnxBased


class PreparedRequest(Prepared):
    """A network compiled for inputs of any shape, and once more for every shape that it is warmed for.

    compiled: network → its inference request; `run` takes the one of the inputs' shape, where there is one.
    """

    def __init__(self, network, compiled: Callable):
        self.network, self.compiled = network, compiled
        self.request = compiled(network)
        self.of_shape: dict[tuple[int, ...], object] = {}

    def warm(self, inputs: dict) -> None:
        shape = _shape(arrays := as_arrays(inputs))
        if shape not in self.of_shape:
            network = self.network.clone()
            try:
                network.reshape({port: list(shape) for port in network.inputs})
                self.of_shape[shape] = self.compiled(network)
            except RuntimeError as error:
                raise ResourceError(f"OpenVINO cannot compile for inputs of {list(shape)}: {brief(error)}") from error
        self.run(arrays)

    def run(self, inputs: dict) -> np.ndarray:
        # The inputs are read where they lie; the output is a copy, since the request writes to its own again.
        arrays = as_arrays(inputs)
        request = self.of_shape.get(_shape(arrays), self.request)
        return request.infer(arrays, share_inputs=True, share_outputs=False)[0]

    def close(self) -> None:
        self.network = self.request = None
        self.of_shape.clear()


def _shape(arrays: dict[str, np.ndarray]) -> tuple[int, ...]:
    return next(iter(arrays.values())).shape


class OpenVino(OnnxBased):
    """`hint`: the precision that OpenVINO is told; left to itself it computes fp32 models in bf16 where the CPU can."""

    hint = "f32"
    fits_shapes = True
    users = Users(
        backend="openvino",
        module="optimum.intel",
        prefix="OV",
        argument="ov_config",
        code='import openvino\ncompiled = openvino.Core().compile_model("{folder}/openvino_model.xml", "CPU", {hints})',
        note="OpenVINO keeps no precision in its files, and left to itself computes in bf16 where the processor can. "
        "SentenceTransformer reads the hints from sentence_bert_config.json; elsewhere they are passed as above. "
        "All of them compile for inputs of any shape. Where every batch has the same, `network = core.read_model(…)`, "
        "`network.reshape([8, 128])` and compiling that is faster; latencies are of graphs compiled so, unless it is "
        "said.",
        packages=("openvino", "onnx", "torch", "transformers"),
    )

    @property
    def hints(self) -> dict[str, str]:
        return {"INFERENCE_PRECISION_HINT": self.hint, "PERFORMANCE_HINT": "LATENCY"}

    def convert(self, path: Path | str, calibration: Sequence[dict] | None):
        return self.transform(load_optional("openvino").convert_model(str(path)), calibration)

    def open(self, graph, threads: int) -> PreparedRequest:
        core, settings = load_optional("openvino").Core(), {**self.hints, "INFERENCE_NUM_THREADS": threads}

        def compiled(network):
            found = core.compile_model(network, "CPU", settings)
            used = found.get_property("INFERENCE_PRECISION_HINT").to_string()
            if used != self.hint:
                raise ResourceError(f"OpenVINO computes in {used} on this CPU though {self.hint} was asked for")
            return found.create_infer_request()

        return PreparedRequest(graph, compiled)

    def save(self, graph, folder: Path) -> None:
        save_ir(graph, folder / "openvino_model.xml")

    def transform(self, network, calibration: Sequence[dict] | None):
        """The network that is compiled, of the one that was read."""
        return network


class OpenVinoBf16(OpenVino):
    hint = "bf16"


class OpenVinoInt8(OpenVino):
    """A model that is quantised already is run as it is; any other is quantised by NNCF.

    What stays in floating point is computed in bf16 where the processor has it.
    """

    @property
    def hint(self) -> str:
        return "f32" if emulated("bf16") else "bf16"

    def check_calibration(self, model: nn.Module, calibration: Sequence[dict] | None) -> None:
        if not calibration and not has_eight_bits(model):
            raise MeasureError(f"{self.name} needs calibration batches: pass calibration=[input dict, ...]")

    def transform(self, network, calibration: Sequence[dict] | None):
        """The transformer recipe of NNCF, with SmoothQuant, where nothing is quantised yet."""
        if any(node.get_type_name() == "FakeQuantize" for node in network.get_ops()):
            return network
        nncf = load_optional("nncf")
        nncf.set_log_level("ERROR")
        batches = [as_arrays(batch) for batch in calibration]
        return nncf.quantize(
            network, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches)
        )


FP32 = OpenVino("openvino", "OpenVINO, fp32", needs=("openvino",))
BF16 = OpenVinoBf16(
    "openvino_bf16", "OpenVINO, fp32 weights computed in bf16", precision="bf16", needs=("openvino",), tolerance=0.15
)
INT8 = OpenVinoInt8(
    "openvino_int8",
    "OpenVINO, int8 weights and activations",
    precision="int8",
    needs=("openvino", "nncf"),
    tolerance=0.5,
)
