"""Where a model can run: an engine at a precision. Names cost no import; rows load torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icd_lib.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

# A row is called by its engine, and by its precision unless that is fp32.
OWN = {
    "eager": "icd_lib.runtimes.eager:RUNTIME",
    "eager_bf16": "icd_lib.runtimes.eager:BF16",
    "compile": "icd_lib.runtimes.compile:RUNTIME",
    "compile_bf16": "icd_lib.runtimes.compile:BF16",
    "onnxruntime": "icd_lib.runtimes.onnxruntime:RUNTIME",
    "onnxruntime_int8": "icd_lib.runtimes.onnxruntime:INT8",
    "openvino": "icd_lib.runtimes.openvino:FP32",
    "openvino_bf16": "icd_lib.runtimes.openvino:BF16",
    "openvino_int8": "icd_lib.runtimes.openvino:INT8",
}
# The compiler bridge's, which a scenario asks for (bridge.enable): named by what they read and what compiles it.
BRIDGE = {
    "stablehlo_iree": "icd_lib.runtimes.bridge:IREE",
    "tvm_relax": "icd_lib.runtimes.bridge:TVM",
}
RUNTIMES = Registry("runtimes", OWN | BRIDGE)
REFERENCE = "eager"  # quality and outputs are compared with what models give in it
PRECISIONS = ("fp32", "bf16", "int8")
ENGINES = tuple(dict.fromkeys(name.partition("_")[0] for name in OWN))


def rows_of(engine: str, precision: str) -> list[str]:
    """Names of the rows of an engine at a precision; "auto" stands for every one of the project's own.

    >>> rows_of("openvino", "auto")
    ['openvino', 'openvino_bf16', 'openvino_int8']
    """
    found = []
    for name in RUNTIMES:
        own, _, computes = name.partition("_")
        fits = own == engine or (engine == "auto" and name in OWN)
        if fits and precision in ("auto", computes or "fp32"):
            found.append(name)
    return found


def reference_call(model: nn.Module, inputs: dict) -> Callable[[], object]:
    """A call without arguments, for the clock: the model in the reference runtime."""
    return RUNTIMES[REFERENCE].prepare(model, inputs).call(inputs)
