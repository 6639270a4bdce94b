"""Tensors in, tensors out: the compiled CPU kernels with their gradients.

Shapes are those of `selective_scan`; tensors are read in place where their channels lie next to each other, as views of
(B, L, D) tensors do, and copied where they do not. Everything is computed in float64 if `u` is, else in float32.
"""

from types import ModuleType

import numpy as np
import torch

from icd_lib.kernels import cpu_conv, cpu_scan, cpu_step
from icd_lib.kernels.cpu_pool import ITEM, block_width

_SINGLE_THREAD = 1 << 17  # state updates (some 50 µs) below which waking other threads costs more than it saves


def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, return_last_state):
    """`selective_scan` on the CPU; differentiable in every tensor."""
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    out, last = (
        _Scan.apply(*tensors, delta_softplus) if _needs_grad(tensors) else _forward(*tensors, delta_softplus)[:2]
    )
    return (out, last) if return_last_state else out


def scan_step(state, u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """One token of u, delta, z (B, D) and B, C (B, N); `state` (B, D, N), contiguous, is advanced in place. (B, D)."""
    kind = state.dtype
    out = torch.empty(u.shape, dtype=kind)
    u, delta, B, C, z = (None if x is None else x.to(kind)[..., None] for x in (u, delta, B, C, z))
    call = _ScanCall(u, delta, A, B, C, D, z, delta_bias, delta_softplus, kind)
    call.address(LAST=state)
    call.rows(OUT=out[:, None])
    call.run(cpu_scan.step)
    return out


def mixer_step(recent, state, x, z, conv, conv_bias, select, step, bias, log_rates, skip):
    """One token of a mixer's convolution with silu, selection, scan and gate as one kernel: (B, D).

    x, z (B, D), channels side by side; `recent` (B, D, K) and `state` (B, D, N) are advanced in place; conv (D, K);
    select (R + 2 N, D); step (D, R); log_rates (D, N), log(−A); bias, skip (D,). All contiguous and of one dtype,
    float32 or float64: `is_whole` says so.
    """
    sequences, width = x.shape
    out = torch.empty(sequences, width, dtype=x.dtype)
    sizes = [width, state.shape[2], step.shape[1], recent.shape[2]]
    rows = [number for tensor in (x, z, out) for number in (tensor.data_ptr(), tensor.stride(0))]
    whole = (recent, state, conv, conv_bias, select, step, bias, log_rates, skip)
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in whole]
    arguments = np.array([0, sequences, x.element_size(), *sizes, *rows, *addresses], dtype=np.int64)
    work = sequences * width * (state.shape[2] + select.shape[0])
    cpu_step.step(arguments, 1 if work < _SINGLE_THREAD else torch.get_num_threads())
    return out


def is_whole(rows, tensors) -> bool:
    """Whether rows (B, D) and tensors (None: not given) are what `mixer_step` takes."""
    kind, given = rows[0].dtype, [tensor for tensor in tensors if tensor is not None]
    return (
        kind in (torch.float32, torch.float64)
        and all(row.dtype == kind and row.stride(1) == 1 for row in rows)
        and all(tensor.dtype == kind and tensor.is_contiguous() for tensor in given)
        and not any(tensor.device.type != "cpu" for tensor in given)
    )


def conv(x, weight, bias, activation, initial):
    """`causal_conv1d` on the CPU; differentiable in x, weight and bias."""
    if _needs_grad((x, weight, bias)):
        return _Conv.apply(x, weight, bias, activation, initial)
    return _conv_forward(x, weight, bias, activation, initial)


def conv_step(recent, x, weight, bias, activation):
    """One token: `recent` (B, D, K), contiguous, the last K inputs, is shifted in place. x (B, D); returns (B, D)."""
    out = torch.empty(x.shape, dtype=recent.dtype)
    call = _ConvCall(x.to(recent.dtype)[..., None], weight, bias, activation, recent)
    call.rows(OUT=out[:, None])
    call.run(cpu_conv.step)
    return out


def _needs_grad(tensors) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _kind(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


class _Call:
    """An argument vector, and the tensors whose addresses it holds."""

    module: ModuleType  # of the kernel

    def __init__(self, kind: torch.dtype):
        self.kind, self.kept, self.updates = kind, [], 0
        self.values = [0] * self.module.ARGUMENTS
        self.values[ITEM] = 8 if kind == torch.float64 else 4

    def address(self, **tensors) -> None:
        """Contiguous tensors in the kernel's dtype."""
        for name, tensor in tensors.items():
            if tensor is not None:
                tensor = tensor.detach().to(self.kind).contiguous()
                self.kept.append(tensor)
                self.values[getattr(self.module, name)] = tensor.data_ptr()

    def columns(self, **tensors) -> None:
        """Inputs of shape (B, X, L), read along X."""
        self.rows(
            **{name: None if t is None else t.detach().to(self.kind).transpose(1, 2) for name, t in tensors.items()}
        )

    def rows(self, **tensors) -> None:
        """Tensors of shape (B, L, X), read and written along X."""
        for name, tensor in tensors.items():
            if tensor is not None:
                if tensor.stride(2) != 1 and tensor.shape[2] > 1:
                    tensor = tensor.contiguous()
                self.kept.append(tensor)
                place = getattr(self.module, name)
                self.values[place : place + 3] = tensor.data_ptr(), tensor.stride(0), tensor.stride(1)

    def run(self, kernel) -> None:
        kernel(np.array(self.values, dtype=np.int64), 1 if self.updates < _SINGLE_THREAD else torch.get_num_threads())


class _ScanCall(_Call):
    module = cpu_scan

    def __init__(self, u, delta, A, B, C, D, z, delta_bias, delta_softplus, kind):
        super().__init__(kind)
        sequences, width, length = u.shape
        states = A.shape[1]
        self.block = block_width(sequences, width, cpu_scan.FIRST_LEVEL // states)
        self.blocks, self.updates = -(-width // self.block), sequences * width * length * states
        self.tasks = sequences * self.blocks
        head = [0, self.tasks, self.values[ITEM], length, width, states, self.block, int(delta_softplus)]
        self.values[: len(head)] = head
        self.columns(U=u, DELTA=delta, Z=z, B=B, C=C)
        self.address(A=A, SKIP=D, BIAS=delta_bias)


class _ConvCall(_Call):
    module = cpu_conv

    def __init__(self, x, weight, bias, activation, before):
        super().__init__(_kind(x))
        sequences, width, length = x.shape
        block = block_width(sequences, width)
        self.updates = sequences * width * length
        head = [0, sequences * -(-width // block), self.values[ITEM], length, width, weight.shape[1], block]
        head.append(int(activation == "silu"))
        self.values[: len(head)] = head
        self.columns(X=x)
        self.address(WEIGHT=weight, BIAS=bias, BEFORE=before)


def _forward(u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus, keep: bool = False):
    """(out, last state, states before every chunk or None)."""
    kind = _kind(u)
    sequences, width, length = u.shape
    states = A.shape[1]
    call = _ScanCall(u, delta, A, B, C, D, z, delta_bias, delta_softplus, kind)
    out, last = torch.empty(sequences, length, width, dtype=kind), torch.empty(sequences, width, states, dtype=kind)
    chunks = -(-length // cpu_scan.CHUNK)
    saved = torch.empty(call.tasks, chunks, states, call.block, dtype=kind) if keep else None
    call.rows(OUT=out)
    call.address(FIRST=initial_state, LAST=last, SAVED=saved)
    call.run(cpu_scan.forward)
    return out.transpose(1, 2).to(u.dtype), last, saved


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, initial_state, delta_softplus):
        tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
        out, last, saved = _forward(*tensors, delta_softplus, keep=True)
        ctx.save_for_backward(*tensors, saved)
        ctx.delta_softplus = delta_softplus
        ctx.set_materialize_grads(False)
        return out, last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out, grad_last):
        u, delta, A, B, C, D, z, delta_bias, initial_state, saved = ctx.saved_tensors
        kind = _kind(u)
        sequences, width, length = u.shape
        states = A.shape[1]
        call = _ScanCall(u, delta, A, B, C, D, z, delta_bias, ctx.delta_softplus, kind)
        grad_out = torch.zeros_like(u) if grad_out is None else grad_out
        rows = {name: torch.empty(sequences, length, width, dtype=kind) for name in ("GRAD_U", "GRAD_DELTA", "GRAD_Z")}
        lines = {name: torch.empty(sequences, width, dtype=kind) for name in ("GRAD_SKIP", "GRAD_BIAS")}
        lines |= {name: torch.empty(sequences, width, states, dtype=kind) for name in ("GRAD_A", "GRAD_FIRST")}
        parts = {n: torch.empty(sequences, call.blocks, length, states, dtype=kind) for n in ("GRAD_B", "GRAD_C")}
        call.columns(GRAD_OUT=grad_out)
        call.rows(**rows)
        call.address(SAVED=saved, GRAD_LAST=grad_last, **lines, **parts)
        call.run(cpu_scan.backward)
        return (
            rows["GRAD_U"].transpose(1, 2).to(u.dtype),
            rows["GRAD_DELTA"].transpose(1, 2).to(delta.dtype),
            _sum(lines["GRAD_A"], 0).to(A.dtype),
            _sum(parts["GRAD_B"], 1).transpose(1, 2).to(B.dtype),
            _sum(parts["GRAD_C"], 1).transpose(1, 2).to(C.dtype),
            None if D is None else _sum(lines["GRAD_SKIP"], 0).to(D.dtype),
            None if z is None else rows["GRAD_Z"].transpose(1, 2).to(z.dtype),
            None if delta_bias is None else _sum(lines["GRAD_BIAS"], 0).to(delta_bias.dtype),
            None if initial_state is None else lines["GRAD_FIRST"].to(initial_state.dtype),
            None,
        )


def _sum(partial: torch.Tensor, dim: int) -> torch.Tensor:
    """Sum in index order, whatever the number of threads."""
    return torch.from_numpy(np.add.reduce(partial.numpy(), axis=dim))


def _conv_forward(x, weight, bias, activation, initial):
    before = None if initial is None else torch.nn.functional.pad(initial, (1, 0))  # the kernel keeps K, and skips one
    call = _ConvCall(x, weight, bias, activation, before)
    out = torch.empty(x.shape[0], x.shape[2], x.shape[1], dtype=call.kind)
    call.rows(OUT=out)
    call.run(cpu_conv.forward)
    return out.transpose(1, 2).to(x.dtype)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, activation, initial):
        ctx.save_for_backward(x, weight, bias, initial)
        ctx.activation = activation
        return _conv_forward(x, weight, bias, activation, initial)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out):
        x, weight, bias, initial = ctx.saved_tensors
        before = None if initial is None else torch.nn.functional.pad(initial, (1, 0))
        call = _ConvCall(x, weight, bias, ctx.activation, before)
        grad_x = torch.empty(x.shape[0], x.shape[2], x.shape[1], dtype=call.kind)
        grad_weight = torch.empty(x.shape[0], *weight.shape, dtype=call.kind)
        grad_bias = torch.empty(x.shape[:2], dtype=call.kind)
        call.columns(GRAD_OUT=grad_out)
        call.rows(GRAD_X=grad_x)
        call.address(GRAD_WEIGHT=grad_weight, GRAD_BIAS=grad_bias)
        call.run(cpu_conv.backward)
        return (
            grad_x.transpose(1, 2).to(x.dtype),
            _sum(grad_weight, 0).to(weight.dtype),
            None if bias is None else _sum(grad_bias, 0).to(bias.dtype),
            None,
            None,
        )
