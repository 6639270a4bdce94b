"""mamba_ssm's CUDA kernel, where that package is installed (extra `mamba`) and fits; imported on first use."""

import importlib
import importlib.util
from functools import cache

import torch

from icd_lib.errors import ResourceError

MOST_STATES = 256  # its kernel takes no more
_MODULE = "mamba_ssm.ops.selective_scan_interface"
_INSTALL = "pip install --no-build-isolation mamba-ssm (needs nvcc of torch's CUDA version)"


def is_installed() -> bool:
    """The package is there, whether or not it works."""
    return importlib.util.find_spec("mamba_ssm") is not None


@cache
def load_scan():
    """`selective_scan_fn` of the package; `ResourceError` says why it cannot be used and what to do."""
    if not is_installed():
        raise ResourceError(f"the package mamba_ssm is not installed; {_INSTALL}, or leave the backend unset")
    built_for = torch.version.cuda or "no CUDA at all"
    try:
        return importlib.import_module(_MODULE).selective_scan_fn
    except Exception as error:  # a native library's import raises what it likes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResourceError(
            f"mamba_ssm is installed but cannot be loaded ({reason}): its CUDA extension was built for another CUDA "
            f"or torch than this one (torch {torch.__version__}, CUDA {built_for}). Remove it (pip uninstall "
            f"mamba-ssm) or build it again: {_INSTALL}."
        ) from error


def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, return_last_state):
    """`selective_scan` by mamba_ssm; it takes no initial state (`ResourceError`)."""
    if initial_state is not None:
        raise ResourceError("mamba_ssm's kernel starts from a zero state; leave the backend unset to continue from one")
    kernel = load_scan()
    delta, B, C, z = (None if x is None else x.to(u.dtype) for x in (delta, B, C, z))
    A, D, delta_bias = (None if x is None else x.float() for x in (A, D, delta_bias))
    return kernel(
        u,
        delta,
        A,
        B,
        C,
        D,
        z=z,
        delta_bias=delta_bias,
        delta_softplus=delta_softplus,
        return_last_state=return_last_state,
    )
