"""The selective scan and the causal convolution as plain torch, slow and clear: what every kernel is tested against."""

import torch
from torch.nn.functional import conv1d, pad, silu, softplus


def selective_scan_ref(
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
):
    """The recurrence of a selective state space model (Gu & Dao 2023, eq. 2 and 4), one token at a time.

        Δ_t = softplus(delta_t + delta_bias)
        h_t = exp(Δ_t A) h_{t−1} + Δ_t B_t u_t
        y_t = C_t h_t + D u_t,   out_t = y_t silu(z_t)

    exp(ΔA) is eq. 4's zero-order hold; B̄ = ΔB is its first-order form, as in the published models.
    u, delta, z (B, D, L); A (D, N); B, C (B, N, L); D, delta_bias (D,); initial_state (B, D, N).
    Returns out (B, D, L) in the dtype of u, and with `return_last_state` also h_L (B, D, N). Computes in float64 if u
    is, else in float32.
    """
    kind = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, step, B, C = u.to(kind), delta.to(kind), B.to(kind), C.to(kind)
    if delta_bias is not None:
        step = step + delta_bias.to(kind)[:, None]
    if delta_softplus:
        step = softplus(step)
    h = x.new_zeros(x.shape[0], *A.shape) if initial_state is None else initial_state.to(kind)
    outputs = []
    for t in range(x.shape[-1]):
        decay = torch.exp(torch.einsum("bd,dn->bdn", step[..., t], A.to(kind)))
        h = decay * h + torch.einsum("bd,bn->bdn", step[..., t] * x[..., t], B[..., t])
        outputs.append(torch.einsum("bdn,bn->bd", h, C[..., t]))
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + x * D.to(kind)[:, None]
    if z is not None:
        y = y * silu(z.to(kind))
    out = y.to(u.dtype)
    return (out, h) if return_last_state else out


def causal_conv1d_ref(x, weight, bias=None, activation=None, initial=None):
    """out_t = act(bias + Σ_k weight_k x_{t − K + 1 + k}) for every channel by itself.

    x (B, D, L); weight (D, K); bias (D,); activation None or 'silu'; initial (B, D, K − 1), the inputs before x, or 0.
    """
    before = weight.shape[-1] - 1
    padded = pad(x, (before, 0)) if initial is None else torch.cat([initial.to(x.dtype), x], dim=-1)
    out = conv1d(padded.to(weight.dtype), weight[:, None], bias, groups=weight.shape[0])
    return (silu(out) if activation == "silu" else out).to(x.dtype)
