"""Precisions that a processor has no instructions for: libraries compute them all the same, slower than fp32."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from icd_lib.storage.machine import ISA_LIMIT, cpu_flags, within_limit

if TYPE_CHECKING:
    import torch

BF16_SINCE = (8, 0)  # compute capability
# Any one of them will do; names of x86 and of Arm.
NEEDED = {
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"),
}


def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bf16, so that products in it are worth their rounding."""
    if device.type != "cuda":
        return emulated("bf16") is None
    return device_capability(device) >= BF16_SINCE


def device_capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of an NVIDIA device."""
    import torch

    return torch.cuda.get_device_capability(device)


def emulated(precision: str, flags: set[str] | None = None) -> str | None:
    """Why this processor (or one with `flags`) only emulates a precision; None where it does not, or is unknown.

    >>> emulated("bf16", {"avx2"})
    'this processor has no bf16 instructions (amx_bf16, avx512_bf16, bf16): they are emulated, perhaps slower than fp32'
    >>> emulated("int8", {"avx512_vnni"}) is None
    True

    Instructions above `ISA_LIMIT` count as missing: PyTorch and OpenVINO leave them alone.
    """
    limit = os.environ.get(ISA_LIMIT)
    flags = within_limit(cpu_flags() if flags is None else flags, limit)
    needed = NEEDED.get(precision, ())
    if not needed or not flags or flags & set(needed):
        return None
    whose = f"this processor, with {ISA_LIMIT}={limit}," if limit else "this processor"
    told = f"{whose} has no {precision} instructions ({', '.join(needed)})"
    return f"{told}: they are emulated, perhaps slower than fp32"
