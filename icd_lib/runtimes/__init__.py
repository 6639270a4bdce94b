"""Where a model can run: an engine at a precision. Names cost no import; rows load torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from icd_lib.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from icd_lib.runtimes.base import Runtime

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
# Those of a GPU, for a run on one (the option device): how a module is run there, and the precision as above.
CUDA = {
    "cuda_eager": "icd_lib.runtimes.cuda:EAGER",
    "cuda_eager_bf16": "icd_lib.runtimes.cuda:EAGER_BF16",
    "cuda_eager_fp16": "icd_lib.runtimes.cuda:EAGER_FP16",
    "cuda_compile": "icd_lib.runtimes.cuda:COMPILED",
    "cuda_compile_bf16": "icd_lib.runtimes.cuda:COMPILED_BF16",
    "cuda_compile_fp16": "icd_lib.runtimes.cuda:COMPILED_FP16",
    "cuda_graph": "icd_lib.runtimes.cuda:GRAPH",
    "cuda_graph_bf16": "icd_lib.runtimes.cuda:GRAPH_BF16",
    "cuda_graph_fp16": "icd_lib.runtimes.cuda:GRAPH_FP16",
    "cuda_tensorrt_fp16": "icd_lib.runtimes.tensorrt:FP16",
}
RUNTIMES = Registry("runtimes", OWN | BRIDGE | CUDA)
REFERENCE = "eager"  # quality and outputs are compared with what models give in it
CUDA_REFERENCE = "cuda_eager"  # the same in a run on a GPU
PRECISIONS = ("fp32", "bf16", "int8")
ENGINES = tuple(dict.fromkeys(name.partition("_")[0] for name in OWN))
CUDA_ENGINES = tuple(dict.fromkeys("_".join(name.split("_")[:2]) for name in CUDA))


def reference_of(device: str | None, precision: str = "fp32") -> str:
    """The row that others are compared with on a device; None: the CPU. precision: that of a GPU's, of the weights.

    >>> reference_of("cuda:0", "bf16"), reference_of("cpu", "bf16")
    ('cuda_eager_bf16', 'eager')
    """
    if device in (None, "cpu"):
        return REFERENCE
    return CUDA_REFERENCE if precision == "fp32" else f"{CUDA_REFERENCE}_{precision}"


def rows_of(engine: str, precision: str, device: str | None = None) -> list[str]:
    """Names of the rows of an engine at a precision; "auto" stands for every one of the project's own.

    device: what they compute on, None for the CPU; on a GPU "eager" and "compile" are what they are there

    >>> rows_of("openvino", "auto")
    ['openvino', 'openvino_bf16', 'openvino_int8']
    >>> rows_of("compile", "fp32", "cuda:0")
    ['cuda_compile']
    """
    found = []
    on_cpu = device in (None, "cpu")
    for name in RUNTIMES:
        if (name in CUDA) == on_cpu:
            continue
        own, computes = _parts(name)
        fits = engine in (own, own.removeprefix("cuda_")) or (engine == "auto" and (name in OWN or not on_cpu))
        if fits and precision in ("auto", computes):
            found.append(name)
    return found


def _parts(name: str) -> tuple[str, str]:
    """Engine and precision of a row's name."""
    if name in CUDA:
        engine = next(engine for engine in CUDA_ENGINES if name.startswith(engine))
        return engine, name[len(engine) + 1 :] or "fp32"
    engine, _, precision = name.partition("_")
    return engine, precision or "fp32"


def row_on(name: str, device: str | None = None) -> Runtime:
    """The row of a name, which computes on a device where it is one of a GPU's."""
    row = RUNTIMES[name]
    return row if device is None or name not in CUDA else replace(row, device=device)


def reference_call(model: nn.Module, inputs: dict) -> Callable[[], object]:
    """A call without arguments, for the clock: the model in the reference runtime."""
    return RUNTIMES[REFERENCE].prepare(model, inputs).call(inputs)
