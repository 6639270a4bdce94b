"""What the runtimes have in common that read a model's ONNX file."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from icd_lib.models.export import export_onnx
from icd_lib.runtimes.base import Prepared, Runtime


class OnnxBased(Runtime):
    """Prepares from `onnx_path`, an export of this very model, or else from one that it writes to `workdir`."""

    from_onnx: ClassVar[bool] = True

    def prepare(
        self,
        model: nn.Module,
        example_inputs: dict,
        *,
        workdir: Path | str | None = None,
        calibration: Sequence[dict] | None = None,
        threads: int | None = None,
        onnx_path: Path | str | None = None,
    ) -> Prepared:
        self.check()
        self.check_calibration(model, calibration)
        path = onnx_path or export_onnx(model.eval(), example_inputs, Path(workdir) / "model.onnx")
        with self.refusals(model):
            return self.open(self.convert(path, calibration), threads or torch.get_num_threads())

    def check_calibration(self, model: nn.Module, calibration: Sequence[dict] | None) -> None:
        """Raise `MeasureError` where the runtime needs calibration batches and there are none."""

    @property
    def hints(self) -> Mapping[str, str]:
        """What the runtime has to be told when it loads what `save` wrote, for it to compute as here."""
        return {}

    @abstractmethod
    def convert(self, path: Path | str, calibration: Sequence[dict] | None) -> object:
        """The graph of an ONNX file in the runtime's own form, which `open` and `save` take."""

    @abstractmethod
    def open(self, graph: object, threads: int) -> Prepared:
        """The graph, ready to run on so many threads."""

    @abstractmethod
    def save(self, graph: object, folder: Path) -> None:
        """Write the graph into a folder, under the names that the runtime's own users give it."""
