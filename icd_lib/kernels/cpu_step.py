"""One token of a whole Mamba mixer on CPUs, from in_proj's output to out_proj's input, compiled as one kernel.

A task is one sequence: convolution, selection of Δ, B and C, scan and gate follow each other in one core's caches, and
Python comes between none of them. `cpu_conv.step`, two products and `cpu_scan.step` are the same in four calls.

    u = silu(conv(x))    (t, B, C) = W_x u    d = softplus(W_Δ t + b)    h ← exp(−d e^A_log) h + d u B
    out = (Σ_n C_n h_n + D u) silu(z)
"""

import math

import numpy as np
from numba import njit

from icd_lib.kernels.cpu_math import SUMS, exp2, sigmoid, softplus, strip
from icd_lib.kernels.cpu_pool import ITEM, drain, make_kernels

# Argument vector (int64). X, Z and OUT (B, D) are (address, batch stride in elements); the rest are addresses of
# contiguous tensors: RECENT (B, D, K), STATE (B, D, N), CONV (D, K), SELECT (R + 2 N, D), STEP (D, R), RATES (D, N) the
# logarithms of −A, and SKIP, BIAS, CONV_BIAS (D,), the last 0 where there is none.
WIDTH, STATES, RANK, TAPS = range(3, 7)
X, Z, OUT = range(7, 13, 2)
RECENT, STATE, CONV, CONV_BIAS, SELECT, STEP, BIAS, RATES, SKIP = range(13, 22)
ARGUMENTS = 22
_LOG2E = 1 / math.log(2)


@njit(**SUMS)
def _convolved(a, task, like, u):
    """u ← silu(conv(x)); the last inputs are shifted by one in place."""
    width, taps, item = a[WIDTH], a[TAPS], a[ITEM]
    x = strip(a[X] + task * a[X + 1] * item, like, width)
    weight = strip(a[CONV], like, width * taps)
    recent = strip(a[RECENT] + task * width * taps * item, like, width * taps)
    if a[CONV_BIAS]:
        u[:] = strip(a[CONV_BIAS], like, width)
    else:
        u[:] = 0
    for j in range(width):
        for k in range(taps - 1):
            recent[j * taps + k] = recent[j * taps + k + 1]
        recent[j * taps + taps - 1] = x[j]
        for k in range(taps):
            u[j] += weight[j * taps + k] * recent[j * taps + k]
    for j in range(width):
        u[j] *= sigmoid(u[j])


@njit(**SUMS)
def _product(address, item, like, vector, out):
    """out ← M vector for a contiguous matrix at `address`."""
    columns = len(vector)
    for row in range(len(out)):
        line, total = strip(address + row * columns * item, like, columns), type(like)(0)
        for j in range(columns):
            total += line[j] * vector[j]
        out[row] = total


@njit(**SUMS)
def _task(a, task, like):
    kind, item, width, states, rank = type(like), a[ITEM], a[WIDTH], a[STATES], a[RANK]
    u, d, selected = np.empty(width, kind), np.empty(width, kind), np.empty(rank + 2 * states, kind)
    _convolved(a, task, like, u)
    _product(a[SELECT], item, like, u, selected)
    _product(a[STEP], item, like, selected[:rank], d)
    enters, leaves = selected[rank : rank + states], selected[rank + states :]
    bias, skip = strip(a[BIAS], like, width), strip(a[SKIP], like, width)
    for j in range(width):
        d[j] = softplus(d[j] + bias[j])
    total = np.empty(width, kind)
    for j in range(width):
        rates = strip(a[RATES] + j * states * item, like, states)
        h = strip(a[STATE] + (task * width + j) * states * item, like, states)
        rate, amount, sum_j = -d[j] * kind(_LOG2E), d[j] * u[j], kind(0)
        for n in range(states):
            value = exp2(rate * exp2(rates[n] * kind(_LOG2E))) * h[n] + amount * enters[n]
            h[n] = value
            sum_j += value * leaves[n]
        total[j] = sum_j + skip[j] * u[j]
    z = strip(a[Z] + task * a[Z + 1] * item, like, width)
    out = strip(a[OUT] + task * a[OUT + 1] * item, like, width)
    for j in range(width):
        out[j] = total[j] * (z[j] * sigmoid(z[j]))


def _entries(zero, stamp: int) -> tuple:
    def step(pointer):
        drain(pointer, ARGUMENTS, _task, zero, stamp)

    return (step,)


(step,) = make_kernels(_entries)
