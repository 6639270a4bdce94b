"""The selective scan on GPUs without mamba_ssm: one Triton kernel, forward only, prefill and single step.

A program is one block of channels of one sequence. It keeps their states (BLOCK, N) in registers and walks the tokens;
neighbouring threads read neighbouring channels of (B, L, D) memory, so loads are coalesced.
"""

import torch

from icd_lib.errors import ResourceError

try:
    import triton
    import triton.language as tl
except Exception as error:  # a broken one raises what it likes; it is said when the kernel is asked for
    triton, why_not = None, f"{type(error).__name__}: {error}"

BLOCK = 32  # channels of a program
_WARPS = 4

if triton is not None:

    @triton.jit
    def _scan_kernel(
        u,
        delta,
        a,
        b,
        c,
        skip,
        z,
        bias,
        first,
        out,
        last,
        length,
        width,
        states,
        u_batch,
        u_token,
        delta_batch,
        delta_token,
        b_batch,
        b_token,
        c_batch,
        c_token,
        z_batch,
        z_token,
        out_batch,
        out_token,
        SOFTPLUS: tl.constexpr,
        HAS_SKIP: tl.constexpr,
        HAS_Z: tl.constexpr,
        HAS_BIAS: tl.constexpr,
        HAS_FIRST: tl.constexpr,
        KIND: tl.constexpr,
        BLOCK: tl.constexpr,
        STATES: tl.constexpr,
    ):
        sequence = tl.program_id(0).to(tl.int64)
        channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        state = tl.arange(0, STATES)
        inside, real = channel < width, state < states
        tile = inside[:, None] & real[None, :]
        place = channel[:, None] * states + state[None, :]
        rates = tl.load(a + place, mask=tile, other=0.0).to(KIND) * 1.4426950408889634
        place += sequence * width * states
        h = tl.zeros((BLOCK, STATES), dtype=KIND)
        if HAS_FIRST:
            h = tl.load(first + place, mask=tile, other=0.0).to(KIND)
        shift = tl.zeros((BLOCK,), dtype=KIND)
        if HAS_BIAS:
            shift = tl.load(bias + channel, mask=inside, other=0.0).to(KIND)
        through = tl.zeros((BLOCK,), dtype=KIND)
        if HAS_SKIP:
            through = tl.load(skip + channel, mask=inside, other=0.0).to(KIND)
        u += sequence * u_batch + channel
        delta += sequence * delta_batch + channel
        out += sequence * out_batch + channel
        b += sequence * b_batch + state
        c += sequence * c_batch + state
        z += sequence * z_batch + channel
        for _ in range(length):
            x = tl.load(u, mask=inside, other=0.0).to(KIND)
            d = tl.load(delta, mask=inside, other=0.0).to(KIND) + shift
            if SOFTPLUS:
                # log1p(e) as log(w) e / (w − 1) with w = 1 + e: exact to rounding, and e itself where w is 1.
                e = tl.exp(-tl.abs(d))
                w = 1.0 + e
                small = tl.where(w == 1.0, e, tl.log(w) * e / tl.where(w == 1.0, 1.0, w - 1.0))
                d = tl.maximum(d, 0.0) + small
            b_t = tl.load(b, mask=real, other=0.0).to(KIND)
            c_t = tl.load(c, mask=real, other=0.0).to(KIND)
            h = tl.exp2(d[:, None] * rates) * h + (d * x)[:, None] * b_t[None, :]
            y = tl.sum(h * c_t[None, :], axis=1) + through * x
            if HAS_Z:
                gate = tl.load(z, mask=inside, other=0.0).to(KIND)
                y = y * gate / (1.0 + tl.exp(-gate))
            tl.store(out, y, mask=inside)
            u += u_token
            delta += delta_token
            out += out_token
            b += b_token
            c += c_token
            z += z_token
        tl.store(last + place, h, mask=tile)


def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, return_last_state):
    """`selective_scan` by the Triton kernel; no gradients. `ResourceError` says why there is none."""
    if triton is None:
        raise ResourceError(
            f"the scan's Triton kernel cannot be used ({why_not}); Triton comes with torch's CUDA wheels, and "
            "backend='reference' needs none"
        )
    kind = torch.float64 if u.dtype == torch.float64 else torch.float32
    (sequences, width, length), states = u.shape, A.shape[1]
    u_rows, delta, B, C, z = (None if x is None else _rows(x) for x in (u, delta, B, C, z))
    A, D, delta_bias, initial_state = (None if x is None else x.contiguous() for x in (A, D, delta_bias, initial_state))
    out = torch.empty(sequences, length, width, dtype=u.dtype, device=u.device)
    last = torch.empty(sequences, width, states, dtype=kind, device=u.device)
    absent = u_rows  # a pointer that is never read
    strides = [stride for x in (u_rows, delta, B, C, absent if z is None else z, out) for stride in x.stride()[:2]]
    with torch.cuda.device_of(u):  # Triton launches on the current device, wherever its tensors are
        _scan_kernel[(sequences, triton.cdiv(width, BLOCK))](
            u_rows,
            delta,
            A,
            B,
            C,
            absent if D is None else D,
            absent if z is None else z,
            absent if delta_bias is None else delta_bias,
            absent if initial_state is None else initial_state,
            out,
            last,
            length,
            width,
            states,
            *strides,
            SOFTPLUS=delta_softplus,
            HAS_SKIP=D is not None,
            HAS_Z=z is not None,
            HAS_BIAS=delta_bias is not None,
            HAS_FIRST=initial_state is not None,
            KIND=tl.float64 if kind == torch.float64 else tl.float32,
            BLOCK=BLOCK,
            STATES=triton.next_power_of_2(states),
            num_warps=_WARPS,
        )
    out = out.transpose(1, 2)
    return (out, last) if return_last_state else out


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """(B, X, L) as (B, L, X) with neighbouring X, copied only where they are not neighbours already."""
    rows = tensor.transpose(1, 2)
    return rows if rows.stride(2) == 1 or rows.shape[2] == 1 else rows.contiguous()
