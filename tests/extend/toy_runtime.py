"""A runtime as somebody else would write it: eager in half precision.

`ICD_EXTENSIONS=tests.extend.toy_runtime` adds it.
"""

import copy

import numpy as np
from torch import nn

from icd_lib.models.export import as_tensors, main_output
from icd_lib.runtimes import RUNTIMES
from icd_lib.runtimes.base import Prepared, Runtime


class PreparedToy(Prepared):
    def __init__(self, model: nn.Module):
        self.model = model

    def run(self, inputs: dict) -> np.ndarray:
        return main_output(self.model(**as_tensors(inputs)))[1].float().numpy()


class Toy(Runtime):
    def prepare(self, model: nn.Module, example_inputs: dict, **_) -> PreparedToy:
        return PreparedToy(copy.deepcopy(model).eval().bfloat16().requires_grad_(False))


RUNTIMES.add("toy", Toy("toy", "A toy, bf16", precision="bf16", tolerance=0.15))
