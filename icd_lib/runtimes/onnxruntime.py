"""ONNX Runtime on the CPU with all its graph optimisations: in fp32, and in int8 by its own static quantizer."""

import logging
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from icd_lib.errors import MeasureError
from icd_lib.models.export import as_arrays, import_onnxruntime, onnx_session
from icd_lib.models.quantized import has_eight_bits
from icd_lib.optional import load_optional
from icd_lib.runtimes.base import Prepared, Users
from icd_lib.runtimes.onnx_based import OnnxBased


class PreparedSession(Prepared):
    def __init__(self, session):
        self.session = session

    def run(self, inputs: dict) -> np.ndarray:
        return self.session.run(None, as_arrays(inputs))[0]

    def close(self) -> None:
        self.session = None


class OnnxRuntime(OnnxBased):
    users = Users(
        backend="onnx",
        module="optimum.onnxruntime",
        prefix="ORT",
        argument=None,
        code='import onnxruntime\nsession = onnxruntime.InferenceSession("{folder}/model.onnx")',
        note="",
        packages=("onnxruntime", "onnx", "torch", "transformers"),
    )

    def check(self) -> None:
        import_onnxruntime()

    def convert(self, path: Path | str, calibration: Sequence[dict] | None) -> Path | str:
        """The file itself."""
        return path

    def open(self, graph: Path | str, threads: int) -> PreparedSession:
        return PreparedSession(onnx_session(graph, threads=threads))

    def save(self, graph: Path | str, folder: Path) -> None:
        shutil.copyfile(graph, folder / "model.onnx")


class OnnxRuntimeInt8(OnnxRuntime):
    """A model that is quantised already is run as it is; any other is quantised by ONNX Runtime's own quantizer."""

    def check(self) -> None:
        super().check()
        for package in self.needs:
            load_optional(package)

    def check_calibration(self, model: nn.Module, calibration: Sequence[dict] | None) -> None:
        if not calibration and not has_eight_bits(model):
            raise MeasureError(f"{self.name} needs calibration batches: pass calibration=[input dict, ...]")

    def convert(self, path: Path | str, calibration: Sequence[dict] | None) -> Path | str:
        """A file beside the given one; the given one, if it is quantised already."""
        graph = load_optional("onnx").load(str(path), load_external_data=False).graph
        if any(node.op_type == "QuantizeLinear" for node in graph.node):
            return path
        target = Path(path).with_suffix(".int8.onnx")
        quantize(path, target, [as_arrays(batch) for batch in calibration or ()])
        return target


def quantize(path: Path | str, target: Path, batches: Sequence[dict[str, np.ndarray]]) -> None:
    """Write `target`: the file at `path` with every product by a weight in int8 (ONNX Runtime's static quantizer).

    Weights are quantized per output channel, activations per tensor by the least and greatest value in `batches`.
    """
    from onnxruntime.quantization import QuantType, quantize_static

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises on the root logger
    try:
        quantize_static(
            str(path),
            str(target),
            _Reader(batches),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)


class _Reader:
    """Hands batches to the quantizer one by one, then None."""

    def __init__(self, batches: Sequence[dict[str, np.ndarray]]):
        self._left: Iterator[dict[str, np.ndarray]] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


RUNTIME = OnnxRuntime("onnxruntime", "ONNX Runtime, fp32, all graph optimisations", needs=("onnxruntime",))
INT8 = OnnxRuntimeInt8(
    "onnxruntime_int8",
    "ONNX Runtime, int8 weights and activations by its static quantizer",
    precision="int8",
    needs=("onnxruntime", "onnx"),
    tolerance=0.5,
)
