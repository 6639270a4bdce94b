"""Transformers eager on an NVIDIA device: a copy of the model there, its cache beside it, logits back on the CPU.

A step returns when its logits are on the CPU, so that its time is what whoever chooses the next token there waits for.
"""

import copy
from dataclasses import dataclass

from torch import nn

from icd_lib.decoding.eager import Eager
from icd_lib.runtimes.cuda import DTYPES, check_cuda
from icd_lib.storage.devices import telling_of_memory


@dataclass(frozen=True)
class EagerOnDevice(Eager):
    """`device`: where the copy goes, as torch names it."""

    device: str = "cuda"

    @property
    def engine(self) -> str:
        return "cuda_eager"

    def check(self) -> None:
        super().check()
        check_cuda(self.name, self.device)

    def form(self, model: nn.Module) -> nn.Module:
        self.check()
        with telling_of_memory(f"{self.name} made a model ready", "decode smaller batches (decode.clock)"):
            return copy.deepcopy(model.eval()).to(self.device, DTYPES[self.precision])


# Largest difference of logits to eager on a CPU that is rounding, relative to their largest.
_ROUNDING = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.02}


def _row(precision: str) -> EagerOnDevice:
    name = "cuda_eager" if precision == "fp32" else f"cuda_eager_{precision}"
    label = f"Transformers eager on CUDA, {precision}"
    return EagerOnDevice(name, label, precision=precision, tolerance=_ROUNDING[precision])


EAGER, EAGER_BF16, EAGER_FP16 = map(_row, _ROUNDING)
