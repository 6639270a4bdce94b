"""PyTorch as it is, module by module: the runtime that the others are compared with; and the same in bf16."""

import copy
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
            return main_output(self.module(**as_tensors(inputs)))[1].float().cpu().numpy()

    @property
    def judged(self) -> nn.Module:
        """What a judge of models is given: it calls it at many shapes."""
        return self.module

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


class EagerBf16(Eager):
    users = None

    def prepare(self, model: nn.Module, example_inputs: dict, **_) -> PreparedEager:
        return PreparedEager(in_bf16(model))


def in_bf16(model: nn.Module) -> nn.Module:
    """Copy whose weights and arithmetic are bf16; `model` is in evaluation mode from now on."""
    return copy.deepcopy(model.eval()).to(torch.bfloat16)


RUNTIME = Eager("eager", "PyTorch eager, fp32")
BF16 = EagerBf16("eager_bf16", "PyTorch eager, bf16 weights", precision="bf16", tolerance=0.15)
