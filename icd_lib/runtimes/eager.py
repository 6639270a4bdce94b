"""PyTorch as it is, module by module: the runtime that arms are timed in and the others are compared with."""

from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from torch import nn

from icd_lib.models.export import as_tensors, main_output
from icd_lib.runtimes.base import Prepared, Runtime, Users


class PreparedModule(Prepared):
    """A torch module, compiled or not."""

    def __init__(self, module: nn.Module):
        self.module = module
        held = list(chain(module.parameters(), module.buffers()))
        self.memory_bytes = sum(tensor.nbytes for tensor in held)
        self._cuda = any(tensor.is_cuda for tensor in held)

    def run(self, inputs: dict) -> np.ndarray:
        with torch.no_grad():
            return main_output(self.module(**as_tensors(inputs)))[1].cpu().numpy()

    def synchronise(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()

    def close(self) -> None:
        self.module = None


class PreparedEager(PreparedModule):
    def call(self, inputs: dict) -> Callable[[], object]:
        """The model's own call with the inputs as they are; its output is not taken apart."""
        module = self.module

        def call():
            with torch.inference_mode():
                return module(**inputs)

        def call_and_wait():
            output = call()
            self.synchronise()
            return output

        return call_and_wait if self._cuda else call


class Eager(Runtime):
    users = Users(
        backend="torch",
        module="torch",
        prefix=None,
        argument=None,
        code='import icd_lib as icd\nmodel = icd.load_optimized("{folder}")',
        note="",
        packages=("torch", "transformers"),
    )

    def prepare(self, model: nn.Module, example_inputs: dict, **_) -> PreparedEager:
        return PreparedEager(model.eval())


RUNTIME = Eager("eager", "PyTorch eager, fp32")
