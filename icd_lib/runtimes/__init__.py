"""Where a model can run: eager, torch.compile, ONNX Runtime, OpenVINO. Names cost no import; rows load torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icd_lib.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

OWN = {
    "eager": "icd_lib.runtimes.eager:RUNTIME",
    "compile": "icd_lib.runtimes.compile:RUNTIME",
    "onnxruntime": "icd_lib.runtimes.onnxruntime:RUNTIME",
    "openvino": "icd_lib.runtimes.openvino:FP32",
    "openvino_bf16": "icd_lib.runtimes.openvino:BF16",
    "openvino_int8": "icd_lib.runtimes.openvino:INT8",
}
RUNTIMES = Registry("runtimes", OWN)
REFERENCE = "eager"  # arms are timed and judged in it, and the others are compared with it


def reference_call(model: nn.Module, inputs: dict) -> Callable[[], object]:
    """A call without arguments, for the clock: the model in the reference runtime."""
    return RUNTIMES[REFERENCE].prepare(model, inputs).call(inputs)
