"""ONNX Runtime on the CPU, with all its graph optimisations."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icd_lib.models.export import as_arrays, import_onnxruntime, onnx_session
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


RUNTIME = OnnxRuntime("onnxruntime", "ONNX Runtime, fp32, all graph optimisations", needs=("onnxruntime",))
