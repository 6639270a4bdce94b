"""Kernels that no library offers where this project runs: the selective scan of state space models."""

from icd_lib.kernels.reference import causal_conv1d_ref, selective_scan_ref
from icd_lib.kernels.scan import (
    BACKENDS,
    causal_conv1d,
    causal_conv1d_step,
    selective_scan,
    selective_scan_step,
)

__all__ = [
    "BACKENDS",
    "causal_conv1d",
    "causal_conv1d_ref",
    "causal_conv1d_step",
    "selective_scan",
    "selective_scan_ref",
    "selective_scan_step",
    "use_fast_scan",
    "use_stock_scan",
]


def __getattr__(name: str):
    if name in ("use_fast_scan", "use_stock_scan"):  # they need Transformers, the kernels do not
        from icd_lib.kernels import mixer

        return getattr(mixer, name)
    raise AttributeError(f"module 'icd_lib.kernels' has no attribute {name!r}; it has {', '.join(__all__)}")
