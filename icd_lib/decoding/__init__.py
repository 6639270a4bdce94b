"""Where a decoder can generate: an engine at a precision, each with a cache of its own. Names cost no import."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from icd_lib.registry import Registry

if TYPE_CHECKING:
    from icd_lib.decoding.base import DecodeRuntime

# A row is called by its engine, and by what it computes in or keeps its weights in unless that is fp32.
OWN = {
    "eager": "icd_lib.decoding.eager:RUNTIME",
    "eager_bf16": "icd_lib.decoding.eager:BF16",
    "compile": "icd_lib.decoding.compiled:RUNTIME",
    "openvino": "icd_lib.decoding.openvino:FP32",
    "openvino_bf16": "icd_lib.decoding.openvino:BF16",
    "openvino_int8": "icd_lib.decoding.openvino:INT8",
    "openvino_int4": "icd_lib.decoding.openvino:INT4",
    "llamacpp": "icd_lib.decoding.llamacpp:RUNTIME",
}
# Those of a GPU, for a run on one (the option device).
CUDA = {
    "cuda_eager": "icd_lib.decoding.cuda:EAGER",
    "cuda_eager_bf16": "icd_lib.decoding.cuda:EAGER_BF16",
    "cuda_eager_fp16": "icd_lib.decoding.cuda:EAGER_FP16",
}
DECODERS = Registry("decoders", OWN | CUDA)
IN_PROCESS = tuple(name for name in OWN if name != "llamacpp")  # those that take a model, and no file of another form
PEERS = ("openvino", "openvino_bf16", "openvino_int8", "openvino_int4")  # what a user has without this project
# What a run of a decoder leaves, by its weights, and where bf16 would only be emulated: of several the fastest.
EXPORTED = {"float": ("openvino", "openvino_bf16"), "grouped": ("openvino_int8",), "emulated": ("openvino",)}
REFERENCE = "eager"  # tokens and logits are compared with what models give in it


def row_at(device: str | None, precision: str = "fp32") -> DecodeRuntime:
    """Transformers eager where a run computes; precision: what the weights are in there, on a GPU alone."""
    if device in (None, "cpu"):
        return DECODERS[REFERENCE]
    row = DECODERS["cuda_eager" if precision == "fp32" else f"cuda_eager_{precision}"]
    return replace(row, device=device)
