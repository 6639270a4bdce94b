"""Where the models of a run are deployed: a runtime with all that it takes to run any of them there."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from icd_lib.runtimes import REFERENCE, RUNTIMES
from icd_lib.runtimes.base import Prepared, Runtime
from icd_lib.runtimes.eager import PreparedModule
from icd_lib.runtimes.encoder import RuntimeEncoder


@dataclass(frozen=True, eq=False)
class Target:
    """row: the runtime; calibration: the batches of the models' inputs that int8 is calibrated on."""

    row: Runtime
    calibration: Sequence[dict] = ()

    @classmethod
    def named(cls, name: str, calibration: Sequence[dict] = ()) -> "Target":
        """The target of a row's name; `ConfigError` for a name that is none."""
        return cls(RUNTIMES[name], calibration)

    @property
    def is_reference(self) -> bool:
        """Whether it is the runtime that all others are compared with."""
        return self.row.name == REFERENCE

    def prepare(self, model: nn.Module, example: dict) -> Prepared:
        """The model, ready to run: whoever asks closes it. Raises as `Runtime.prepare` does."""
        with tempfile.TemporaryDirectory() as folder:
            return self.row.prepare(model, example, workdir=folder, calibration=self.calibration)

    def call(self, model: nn.Module, inputs: dict) -> Callable[[], object]:
        """A call without arguments, for the clock: the model on `inputs`, ready and warm for them."""
        prepared = self.prepare(model, inputs)
        if not self.is_reference:
            prepared.warm(inputs)
        return prepared.call(inputs)

    @contextmanager
    def judged_form(self, model: nn.Module, example: dict) -> Iterator:
        """The model as it computes here, for a judge of models: a torch module, or an encoder with its outputs."""
        if self.is_reference:
            yield model
            return
        # A runtime with a graph of its own has one output: the encoder's, which is what its judge reads of a model.
        prepared = self.prepare(getattr(model, "base_model", model) if self.row.from_onnx else model, example)
        try:
            yield prepared.judged if isinstance(prepared, PreparedModule) else RuntimeEncoder(prepared)
        finally:
            prepared.close()


EAGER = Target(RUNTIMES[REFERENCE])
