"""Where the models of a run are deployed: a runtime with all that it takes to run any of them there."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from icd_lib.runtimes import CUDA_REFERENCE, REFERENCE, RUNTIMES, row_on
from icd_lib.runtimes.base import Prepared, Runtime
from icd_lib.runtimes.cuda_events import time_round_on_device
from icd_lib.runtimes.encoder import RuntimeEncoder
from icd_lib.storage.devices import CPU, device_of


@dataclass(frozen=True, eq=False)
class Target:
    """row: the runtime; calibration: the batches of the models' inputs that int8 is calibrated on."""

    row: Runtime
    calibration: Sequence[dict] = ()

    @classmethod
    def named(cls, name: str, calibration: Sequence[dict] = (), device: str | None = None) -> "Target":
        """The target of a row's name, on a device where the row is a GPU's; `ConfigError` for a name that is none."""
        return cls(row_on(name, device), calibration)

    @property
    def device(self) -> str:
        """What it computes on, as torch names it."""
        return getattr(self.row, "device", CPU)

    @property
    def is_reference(self) -> bool:
        """Whether it is the runtime that all others on its device are compared with."""
        return self.row.name in (REFERENCE, CUDA_REFERENCE)

    @property
    def time_round(self) -> Callable[[list[Callable[[], object]]], list[int]] | None:
        """The clock: events of the device; None for this process's own, where the work is done when a call returns."""
        if torch.device(self.device).type != "cuda":
            return None
        return partial(time_round_on_device, device=self.device)

    def prepare(self, model: nn.Module, example: dict) -> Prepared:
        """The model, ready to run: whoever asks closes it. Raises as `Runtime.prepare` does."""
        if self.is_reference:  # which writes nothing
            return self.row.prepare(model, example)
        with tempfile.TemporaryDirectory() as folder:
            return self.row.prepare(model, example, workdir=folder, calibration=self.calibration)

    def call(self, model: nn.Module, inputs: dict) -> Callable[[], object]:
        """A call without arguments, for the clock: the model on `inputs`, ready and warm for them."""
        prepared = self.prepare(model, inputs)
        if not self.is_reference:
            prepared.warm(inputs)
        return prepared.call(inputs)

    def enqueue(self, model: nn.Module, inputs: dict) -> Callable[[], object]:
        """As `call`, for `time_round`: it may return before the device is done."""
        prepared = self.prepare(model, inputs)
        if not self.is_reference:
            prepared.warm(inputs)
        return prepared.enqueue(inputs)

    @contextmanager
    def judged_form(self, model: nn.Module, example: dict) -> Iterator:
        """The model as it computes here, for a judge of models: a torch module, or an encoder with its outputs."""
        if self.is_reference and device_of(model) == torch.device(self.device):
            yield model
            return
        # A runtime with a graph of its own has one output: the encoder's, which is what its judge reads of a model.
        prepared = self.prepare(getattr(model, "base_model", model) if self.row.from_onnx else model, example)
        try:
            yield RuntimeEncoder(prepared) if prepared.judged is None else prepared.judged
        finally:
            prepared.close()


EAGER = Target(RUNTIMES[REFERENCE])
