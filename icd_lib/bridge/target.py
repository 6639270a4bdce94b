"""The processor that the bridge compiles for: this machine's."""

from icd_lib.storage.machine import cpu_flags


def float_lanes() -> int:
    """float32 numbers of a SIMD register."""
    flags = cpu_flags()
    return 16 if "avx512f" in flags else 8 if "avx2" in flags else 4
