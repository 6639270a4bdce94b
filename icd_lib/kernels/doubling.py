"""The selective scan in log2(L) steps over all tokens, for graphs of one length, where a loop would be unrolled."""

import torch
from torch.nn.functional import pad, silu, softplus
from torch.utils.checkpoint import checkpoint


def selective_scan_doubling(
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
    """What `selective_scan_ref` gives.

    The map h → a h + b of tokens t − s + 1 … t is put after that of the s tokens before them, for s = 1, 2, 4, …
    (Hillis and Steele 1986): a' = a · shift(a), b' = b + a · shift(b). Sums and products alone, so that no digits are
    lost where decays multiply to nothing, as they are in the closed form by cumulative sums.
    """
    kind = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, step, B, C = u.to(kind), delta.to(kind), B.to(kind), C.to(kind)
    if delta_bias is not None:
        step = step + delta_bias.to(kind)[:, None]
    if delta_softplus:
        step = softplus(step)
    a = torch.exp(step.unsqueeze(-1) * A.to(kind)[:, None])  # (B, D, L, N)
    h = (step * x).unsqueeze(-1) * B.transpose(1, 2).unsqueeze(1)
    if initial_state is not None:
        h = torch.cat([h[:, :, :1] + a[:, :, :1] * initial_state.to(kind).unsqueeze(2), h[:, :, 1:]], 2)
    length, shift = x.shape[-1], 1
    while shift < length:
        h = h + a * pad(h[:, :, :-shift], (0, 0, shift, 0))
        if 2 * shift < length:
            a = a * pad(a[:, :, :-shift], (0, 0, shift, 0), value=1.0)
        shift *= 2
    y = (h * C.transpose(1, 2).unsqueeze(1)).sum(-1)
    if D is not None:
        y = y + x * D.to(kind)[:, None]
    if z is not None:
        y = y * silu(z.to(kind))
    out = y.to(u.dtype)
    return (out, h[:, :, -1]) if return_last_state else out


def selective_scan_recomputed(*arguments):
    """The same with gradients: of every call its arguments alone are kept, and its steps are made again."""
    return checkpoint(selective_scan_doubling, *arguments, use_reentrant=False)
