"""How exactly torch multiplies numbers of float32: in full for what is computed here, and as the caller set it after.

torch has two ways to say it: `set_float32_matmul_precision` and `allow_tf32`, which cannot be read once the newer
`fp32_precision` of an operation says something else, and that one, in which "none" follows the backend and torch as a
whole (torch's notes on numerical accuracy, "Full FP32 matmul").
"""

from typing import Any

import torch
from torch import backends

FULL, INHERITED = "ieee", "none"


def _operations() -> tuple[Any, ...]:
    cudnn, mkldnn = backends.cudnn, backends.mkldnn
    return backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn


def read_exactness() -> tuple:
    """What is set now, for `restore_exactness`."""
    return _read_older(), tuple(operation.fp32_precision for operation in _operations())


def multiply_in_full() -> None:
    """float32 is float32 on every device, whatever was set before, by an environment variable too."""
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = False
    for operation in _operations():
        operation.fp32_precision = FULL


def restore_exactness(state: tuple) -> None:
    """Set what `read_exactness` gave; what followed the whole of torch follows it again."""
    (products, convolutions), operations = state
    if products is not None:
        torch.set_float32_matmul_precision(products)
    if convolutions is not None:
        backends.cudnn.allow_tf32 = convolutions
    for operation, value in zip(_operations(), operations, strict=True):
        operation.fp32_precision = INHERITED
        if operation.fp32_precision != value:
            operation.fp32_precision = value


def _read_older() -> tuple[str | None, bool | None]:
    """The two older settings, None for one that torch refuses to read beside a newer one."""
    found: list = []
    for read in (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32):
        try:
            found.append(read())
        except RuntimeError:
            found.append(None)
    return found[0], found[1]
