"""What a runtime is: a row that prepares models, and the prepared model that is run, timed and closed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import nn

from icd_lib.errors import IcdError, ResourceError
from icd_lib.optional import brief, load_optional


class Prepared(ABC):
    """A model that is ready to run; `close` gives back what it holds.

    memory_bytes: what the runtime holds for the model's weights, None where it does not say
    """

    memory_bytes: int | None = None

    @abstractmethod
    def run(self, inputs: dict) -> np.ndarray:
        """The model's main output, float32 (B, L, D), in memory that no later run writes to.

        inputs: name → (B, L) int64 tensor or array; a missing `attention_mask` means all ones.
        """

    def warm(self, inputs: dict) -> None:
        """Do what is done once per shape; `ResourceError` where the runtime cannot take inputs of this shape."""
        self.run(inputs)

    def call(self, inputs: dict) -> Callable[[], object]:
        """A call without arguments, for the clock; it returns when the work is done."""
        return partial(self.run, inputs)

    def enqueue(self, inputs: dict) -> Callable[[], object]:
        """As `call`, for a clock that waits for the device itself: it may return before the work is done."""
        return self.call(inputs)

    @property
    def judged(self) -> nn.Module | None:
        """What a judge of models is given, which calls it at many shapes; None where it is no torch module."""
        return None

    def synchronise(self) -> None:  # noqa: B027, a hook that few need
        """Wait for the device; on a CPU a call that has returned has done its work."""

    def close(self) -> None:  # noqa: B027, a hook that few need
        """Give back what is held; the prepared model cannot be run any more."""


@dataclass(frozen=True)
class Users:
    """How those who use a runtime without this project load a folder that was exported for it.

    backend: its name in sentence-transformers; module: what that loads it with
    prefix: of the classes there, which AutoModel's are named like ("OV", "ORT"); None where it has no such classes
    argument: of those classes, by which they and sentence-transformers take hints; None where there are none to take
    code: Python that opens `{folder}` with nothing but the runtime, told `{hints}`; note: what they have to know
    packages: whose versions say what was exported
    """

    backend: str
    module: str
    prefix: str | None
    argument: str | None
    code: str
    note: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Runtime(ABC):
    """A row of `icd_lib.runtimes.RUNTIMES`.

    label: what it is called on pages; precision: what it computes in, "fp32", "bf16" or "int8"
    needs: packages that it imports and that the project can do without
    tolerance: largest absolute difference to eager that is rounding, for outputs of a size around one
    installs: package → pip's name, where it is another one; fixed_shapes: whether every shape is a compile
    fits_shapes: whether `warm` compiles for a shape what runs at others too, and slower there
    from_onnx: whether it reads a model's ONNX file, which all runtimes that do can share
    users: how others load what is exported for it; None where nothing can be
    """

    name: str
    label: str
    precision: str = "fp32"
    needs: tuple[str, ...] = ()
    tolerance: float = 1e-5
    from_onnx: ClassVar[bool] = False
    fixed_shapes: ClassVar[bool] = False
    fits_shapes: ClassVar[bool] = False
    users: ClassVar[Users | None] = None

    @property
    def engine(self) -> str:
        """What computes, in whatever precision: the name's first part."""
        return self.name.partition("_")[0]

    @property
    def installs(self) -> Mapping[str, str]:
        return {}

    @property
    def rounds(self) -> bool:
        """Whether it computes with fewer bits than fp32, so that quality has to be judged again."""
        return self.precision != "fp32"

    def check(self) -> None:
        """Raise `ResourceError` with the cure where a package or a tool is missing."""
        for package in self.needs:
            load_optional(package)

    def reset(self) -> None:  # noqa: B027, a hook that few need
        """Forget what earlier models left in the process; called before models that are compared are prepared."""

    @contextmanager
    def refusals(self, model: nn.Module) -> Iterator[None]:
        """Raise `ResourceError` for whatever the runtime raises within: the model cannot be run here."""
        try:
            yield
        except IcdError:
            raise
        except Exception as error:  # a native library's words for "not on this machine" are many
            raise ResourceError(f"{self.name} cannot run {type(model).__name__} here: {brief(error)}") from error

    @abstractmethod
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
        """Make the model, in evaluation mode from now on, ready to run.

        workdir      folder for an ONNX file, where the runtime reads one and `onnx_path` does not name it
        calibration  input dicts for int8 (8 batches of real text are enough)
        threads      CPU threads (default: torch's); torch's own runtimes take those of the process

        Raises `ResourceError` as `check` does and where the runtime cannot run the model, `MeasureError` where
        calibration is missing.
        """
