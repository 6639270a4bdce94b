"""Precisions that a processor has no instructions for: libraries compute them all the same, slower than fp32."""

import os

from icd_lib.storage.machine import ISA_LIMIT, cpu_flags, within_limit

# Any one of them will do; names of x86 and of Arm.
NEEDED = {
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm"),
}


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
