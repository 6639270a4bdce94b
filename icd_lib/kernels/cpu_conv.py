"""The causal depthwise convolution with its SiLU on CPUs: forward, backward and single step, compiled.

A task is one block of channels of one sequence; channels are the SIMD lanes and K, the number of taps, is small.
"""

import numpy as np
from numba import njit

from icd_lib.kernels.cpu_math import FAST, sigmoid, strip
from icd_lib.kernels.cpu_pool import ITEM, drain, make_kernels

# Argument vector as in cpu_scan: (address, batch stride, token stride), or an address alone where contiguous.
LENGTH, WIDTH, TAPS, BLOCK, SILU = range(3, 8)
X, OUT, GRAD_OUT, GRAD_X = range(8, 20, 3)
WEIGHT, BIAS, BEFORE, GRAD_WEIGHT, GRAD_BIAS = range(20, 25)  # (D, K), (D,), (B, D, K), (B, D, K), (B, D)
ARGUMENTS = 25


@njit(**FAST)
def _row(a, name, sequence, token, first, like, count):
    """Channels first .. first + count of one token of the tensor `name`."""
    return strip(a[name] + (sequence * a[name + 1] + token * a[name + 2] + first) * a[ITEM], like, count)


@njit(**FAST)
def _place(a, task):
    """(sequence, first channel, channels) of a task."""
    blocks = (a[WIDTH] + a[BLOCK] - 1) // a[BLOCK]
    first = (task % blocks) * a[BLOCK]
    return task // blocks, first, min(a[BLOCK], a[WIDTH] - first)


@njit(**FAST)
def _by_tap(a, name, row, lanes, like):
    """Rows row .. row + lanes of a contiguous (rows, K) array as (K, lanes)."""
    taps = a[TAPS]
    source, target = (
        strip(a[name] + row * taps * a[ITEM], like, lanes * taps),
        np.empty((taps, lanes), dtype=type(like)),
    )
    for k in range(taps):
        for j in range(lanes):
            target[k, j] = source[j * taps + k]
    return target


@njit(**FAST)
def _inputs(a, sequence, first, lanes, like):
    """The block's inputs (K − 1 + L, lanes): the last K − 1 of BEFORE (zeros without it), then X."""
    taps = a[TAPS]
    x = np.empty((taps - 1 + a[LENGTH], lanes), dtype=type(like))
    x[: taps - 1] = 0
    if a[BEFORE]:
        x[: taps - 1] = _by_tap(a, BEFORE, sequence * a[WIDTH] + first, lanes, like)[1:]
    for t in range(a[LENGTH]):
        x[taps - 1 + t] = _row(a, X, sequence, t, first, like, lanes)
    return x


@njit(**FAST)
def _convolve(x, t, weight, bias, total):
    """total ← bias + Σ_k weight_k x_{t + k}."""
    for j in range(len(total)):
        total[j] = bias[j]
    for k in range(len(weight)):
        for j in range(len(total)):
            total[j] += weight[k, j] * x[t + k, j]


@njit(**FAST)
def _bias(a, first, lanes, like):
    bias = np.zeros(lanes, dtype=type(like))
    if a[BIAS]:
        bias[:] = strip(a[BIAS] + first * a[ITEM], like, lanes)
    return bias


@njit(**FAST)
def _forward_task(a, task, like):
    sequence, first, lanes = _place(a, task)
    weight, bias = _by_tap(a, WEIGHT, first, lanes, like), _bias(a, first, lanes, like)
    x, total = _inputs(a, sequence, first, lanes, like), np.empty(lanes, dtype=type(like))
    for t in range(a[LENGTH]):
        _convolve(x, t, weight, bias, total)
        out = _row(a, OUT, sequence, t, first, like, lanes)
        if a[SILU]:
            for j in range(lanes):
                out[j] = total[j] * sigmoid(total[j])
        else:
            out[:] = total


@njit(**FAST)
def _backward_task(a, task, like):
    sequence, first, lanes = _place(a, task)
    taps, kind, line = a[TAPS], type(like), sequence * a[WIDTH] + first
    weight, bias = _by_tap(a, WEIGHT, first, lanes, like), _bias(a, first, lanes, like)
    x, total = _inputs(a, sequence, first, lanes, like), np.empty(lanes, dtype=kind)
    grad_weight, grad_bias = np.zeros((taps, lanes), dtype=kind), np.zeros(lanes, dtype=kind)
    grad = np.zeros((a[LENGTH] + taps - 1, lanes), dtype=kind)
    for t in range(a[LENGTH]):
        grad[t] = _row(a, GRAD_OUT, sequence, t, first, like, lanes)
        if a[SILU]:
            _convolve(x, t, weight, bias, total)
            for j in range(lanes):
                s = sigmoid(total[j])
                grad[t, j] *= s + total[j] * (s - s * s)
        for j in range(lanes):
            grad_bias[j] += grad[t, j]
        for k in range(taps):
            for j in range(lanes):
                grad_weight[k, j] += grad[t, j] * x[t + k, j]
    for t in range(a[LENGTH]):
        total[:] = 0
        for k in range(taps):
            for j in range(lanes):
                total[j] += weight[k, j] * grad[t + taps - 1 - k, j]
        _row(a, GRAD_X, sequence, t, first, like, lanes)[:] = total
    target = strip(a[GRAD_WEIGHT] + line * taps * a[ITEM], like, lanes * taps)
    for k in range(taps):
        for j in range(lanes):
            target[j * taps + k] = grad_weight[k, j]
    strip(a[GRAD_BIAS] + line * a[ITEM], like, lanes)[:] = grad_bias


@njit(**FAST)
def _step_task(a, task, like):
    """One token: shift BEFORE (B, D, K), the last K inputs, by one in place, and convolve them."""
    sequence, first, lanes = _place(a, task)
    taps, total = a[TAPS], _bias(a, first, lanes, like)
    x, out = _row(a, X, sequence, 0, first, like, lanes), _row(a, OUT, sequence, 0, first, like, lanes)
    weight = strip(a[WEIGHT] + first * taps * a[ITEM], like, lanes * taps)
    recent = strip(a[BEFORE] + (sequence * a[WIDTH] + first) * taps * a[ITEM], like, lanes * taps)
    for j in range(lanes):
        for k in range(taps - 1):
            recent[j * taps + k] = recent[j * taps + k + 1]
        recent[j * taps + taps - 1] = x[j]
        for k in range(taps):
            total[j] += weight[j * taps + k] * recent[j * taps + k]
    for j in range(lanes):
        out[j] = total[j] * sigmoid(total[j]) if a[SILU] else total[j]


def _entries(zero, stamp: int) -> tuple:
    def forward(pointer):
        drain(pointer, ARGUMENTS, _forward_task, zero, stamp)

    def backward(pointer):
        drain(pointer, ARGUMENTS, _backward_task, zero, stamp)

    def step(pointer):
        drain(pointer, ARGUMENTS, _step_task, zero, stamp)

    return forward, backward, step


forward, backward, step = make_kernels(_entries)
