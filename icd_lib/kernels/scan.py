"""One function for the selective scan, whatever it runs on: the fastest implementation that is there."""

import importlib.util
import warnings
from functools import cache

import torch

from icd_lib.errors import ConfigError, ResourceError
from icd_lib.kernels import cuda_package
from icd_lib.kernels.reference import causal_conv1d_ref, selective_scan_ref

BACKENDS = ("reference", "cpu", "triton", "mamba_ssm", "doubling")


def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    initial_state=None,
    return_last_state=False,
    *,
    backend: str | None = None,
):
    """The recurrence h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t, out_t = (C_t h_t + D u_t) silu(z_t) over L tokens.

    u, delta, z (B, D, L); A (D, N); B, C (B, N, L); D, delta_bias (D,); initial_state (B, D, N). Formulas and dtypes:
    `selective_scan_ref`, with which every backend agrees (docs/MAMBA.md says how closely). Fastest when u, delta and z
    are views of (B, L, D) tensors. Returns out (B, D, L) in the dtype of u, or (out, h_L) with `return_last_state`;
    h_L is float32, float64 for float64 inputs.

    backend None picks: mamba_ssm's kernel on CUDA where it loads, else our Triton kernel, else our compiled kernel on
    CPUs. The CPU kernel and mamba_ssm are differentiable; where Triton's would be taken, tensors that need gradients
    take log2(L) steps of torch's own ("doubling"), with the memory of one scan.
    Raises `ConfigError` for shapes that do not fit, `ResourceError` for a named backend that is not there.
    """
    if not _is_tracing():
        check_scan(u, delta, A, B, C, D, z, delta_bias, initial_state)
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    name = backend or _pick(tensors, initial_state)
    return _implementation(name)(*tensors, delta_softplus, initial_state, return_last_state)


def selective_scan_step(state, u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """One token of `selective_scan`: advances `state` (B, D, N) in place and returns out (B, D).

    u, delta, z (B, D); B, C (B, N). No gradients.
    """
    tensors = (u, delta, A, B, C, D, z, delta_bias)
    if state.device.type == "cpu" and state.is_contiguous() and state.dtype in (torch.float32, torch.float64):
        from icd_lib.kernels import cpu

        return cpu.scan_step(state, *tensors, delta_softplus).to(u.dtype)
    columns = (None if x is None else x.unsqueeze(-1) for x in (u, delta, B, C, z))
    u, delta, B, C, z = columns
    out, last = selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, state, True)
    state.copy_(last)
    return out[..., 0]


def causal_conv1d(x, weight, bias=None, activation=None, initial=None):
    """Causal depthwise convolution out_t = act(bias + Σ_k weight_k x_{t − K + 1 + k}) in the dtype of x.

    x (B, D, L), best as a view of a (B, L, D) tensor; weight (D, K); bias (D,); activation None or 'silu'; initial
    (B, D, K − 1): the inputs before x, zeros if None. Differentiable in all of them.
    """
    if x.device.type == "cpu" and not _is_tracing() and not (initial is not None and initial.requires_grad):
        from icd_lib.kernels import cpu

        return cpu.conv(x, weight, bias, activation, initial)
    return causal_conv1d_ref(x, weight, bias, activation, initial)


def causal_conv1d_step(recent, x, weight, bias=None, activation=None):
    """One token of `causal_conv1d`, x (B, D): shifts `recent` (B, D, K), the last K inputs, in place. No gradients."""
    if recent.device.type == "cpu" and recent.is_contiguous() and recent.dtype in (torch.float32, torch.float64):
        from icd_lib.kernels import cpu

        return cpu.conv_step(recent, x, weight, bias, activation).to(x.dtype)
    out = causal_conv1d_ref(x.unsqueeze(-1), weight, bias, activation, recent[..., 1:])[..., 0]
    recent.copy_(torch.cat([recent[..., 1:], x.unsqueeze(-1).to(recent.dtype)], dim=-1))
    return out


def mixer_step(recent, state, x, z, weights) -> torch.Tensor | None:
    """One token of a mixer in one kernel, (B, D); None where there is none for these tensors, and nothing is changed.

    recent (B, D, K) and state (B, D, N) are advanced in place; x, z (B, D) are in_proj's; weights: the tensors that
    follow in `cpu.mixer_step`. No gradients.
    """
    if x.device.type != "cpu":
        return None
    from icd_lib.kernels import cpu

    if not cpu.is_whole((x, z), (recent, state, *weights)):
        return None
    return cpu.mixer_step(recent, state, x, z, *weights)


def check_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, initial_state=None) -> None:
    """Raise `ConfigError`, naming the argument, unless all shapes fit together and there is something to scan."""
    if u.ndim != 3 or A.ndim != 2 or 0 in u.shape or 0 in A.shape:
        raise ConfigError(
            f"selective_scan takes u (B, D, L) and A (D, N) with at least one token, channel and state; got "
            f"u {tuple(u.shape)} and A {tuple(A.shape)}"
            + ("; the prompt is empty" if u.ndim == 3 and not u.shape[2] else "")
        )
    (sequences, width, length), states = u.shape, A.shape[1]
    expected = {
        "delta": (delta, (sequences, width, length)),
        "A": (A, (width, states)),
        "B": (B, (sequences, states, length)),
        "C": (C, (sequences, states, length)),
        "D": (D, (width,)),
        "z": (z, (sequences, width, length)),
        "delta_bias": (delta_bias, (width,)),
        "initial_state": (initial_state, (sequences, width, states)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ConfigError(
                f"selective_scan takes {name} of shape {shape} beside u {tuple(u.shape)} and A {tuple(A.shape)}; "
                f"got {tuple(tensor.shape)}"
            )
        if tensor is not None and tensor.device != u.device:
            raise ConfigError(
                f"selective_scan takes all tensors on one device: u is on {u.device}, {name} on {tensor.device}"
            )


def _is_tracing() -> bool:
    """A graph is being recorded, and only torch's own operators can be in it."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _pick(tensors, initial_state) -> str:
    device = tensors[0].device.type
    if _is_tracing() or device not in ("cpu", "cuda"):
        return "reference"
    if device == "cpu":
        return "cpu"
    u, A = tensors[0], tensors[2]
    if u.dtype != torch.float64 and A.shape[1] <= cuda_package.MOST_STATES and initial_state is None:
        if _usable_package():
            return "mamba_ssm"
    wants_grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (*tensors, initial_state))
    return "doubling" if wants_grad else "triton" if _has_triton() else "reference"


@cache
def _usable_package() -> bool:
    """mamba_ssm loads; a broken installation is reported once, and the built-in kernel takes over."""
    try:
        cuda_package.load_scan()
    except ResourceError as error:
        if cuda_package.is_installed():
            warnings.warn(f"{error.args[0]} Until then the built-in kernel is used.", stacklevel=4)
        return False
    return True


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _implementation(name: str):
    if name == "reference":
        return selective_scan_ref
    if name == "cpu":
        from icd_lib.kernels import cpu

        return cpu.scan
    if name == "doubling":
        from icd_lib.kernels import doubling

        return doubling.selective_scan_recomputed
    if name == "triton":
        from icd_lib.kernels import triton_scan

        return triton_scan.scan
    if name == "mamba_ssm":
        return cuda_package.scan
    raise ConfigError(f"selective_scan has no backend {name!r}; it takes one of {', '.join(BACKENDS)}")
