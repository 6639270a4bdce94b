"""The compilers behind the bridge: StableHLO through IREE and Relax through TVM, one compile per shape."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from icd_lib.bridge.compile import PACKAGES, kept_or_compiled
from icd_lib.bridge.load import load
from icd_lib.models.export import as_arrays
from icd_lib.optional import find_optional
from icd_lib.runtimes.base import Prepared, Runtime


class PreparedBridge(Prepared):
    """A model and what was compiled of it; `warm` compiles a further shape.

    records: shape of the first input → what icd.json says of its artifact
    folder: where artifacts stay and one that is there is taken as it is; else they go with `close`
    """

    def __init__(self, engine: str, model: nn.Module, threads: int, folder: Path | None = None):
        self.engine, self.model, self.threads = engine, model, threads
        self.records: dict[tuple[int, ...], dict] = {}
        self._calls: dict[tuple[int, ...], Callable[..., np.ndarray]] = {}
        self._held = ExitStack()
        self._folder = folder or Path(self._held.enter_context(tempfile.TemporaryDirectory()))

    def run(self, inputs: dict) -> np.ndarray:
        arrays = as_arrays(inputs)
        return np.array(self._ready(arrays)(*arrays.values()), dtype=np.float32)

    def warm(self, inputs: dict) -> None:
        self._ready(as_arrays(inputs))

    def close(self) -> None:
        self._calls.clear()
        self._held.close()

    def _ready(self, arrays: dict[str, np.ndarray]):
        shape = next(iter(arrays.values())).shape
        if shape not in self._calls:
            folder = self._folder / "x".join(map(str, shape))
            self.records[shape] = kept_or_compiled(self.engine, self.model, arrays, folder)
            self._calls[shape] = load(folder, self.threads)
        return self._calls[shape]


class Bridge(Runtime):
    fixed_shapes: ClassVar[bool] = True

    @property
    def installs(self) -> Mapping[str, str]:
        return PACKAGES[self.name]

    def check(self) -> None:
        """Found, not imported: compilers bring LLVMs of their own, which are for a process of their own."""
        for package in self.needs:
            find_optional(package, self.installs[package])

    def prepare(
        self,
        model: nn.Module,
        example_inputs: dict,
        *,
        threads: int | None = None,
        workdir: Path | str | None = None,
        calibration: Sequence[dict] | None = None,
        onnx_path: Path | str | None = None,
    ) -> PreparedBridge:
        self.check()
        prepared = PreparedBridge(self.name, model.eval(), threads or torch.get_num_threads())
        prepared.warm(example_inputs)
        return prepared


IREE = Bridge(
    "stablehlo_iree", "StableHLO through IREE, fp32, one module per shape", needs=tuple(PACKAGES["stablehlo_iree"])
)
TVM = Bridge("tvm_relax", "Relax through TVM, fp32, one module per shape", needs=tuple(PACKAGES["tvm_relax"]))
