"""The selective scan on CPUs: forward, backward and single step, compiled, vectorised over channels.

A task is one block of channels of one sequence. Its states h (N, block) stay in the first-level cache while it walks
the tokens; channels are the SIMD lanes, and blocks are padded to whole vectors. Tensors are read where they lie, as
(B, L, D) with the channels next to each other.

    d = softplus(delta + bias)       h ← exp(d A) h + d u B_t       y = Σ_n C_t h + D u       out = y silu(z)

The forward pass can keep the states before every chunk of `CHUNK` tokens; the backward pass computes the states of a
chunk again from them and walks the chunk in reverse. g is the gradient of the loss with respect to h.
"""

import math

import numpy as np
from numba import njit

from icd_lib.kernels.cpu_math import FAST, SUMS, exp2, sigmoid, softplus, strip
from icd_lib.kernels.cpu_pool import ITEM, LANES, drain, make_kernels

# Argument vector (int64). A tensor is (address, batch stride, token stride) in elements, or an address alone where it
# is contiguous; address 0: not given.
LENGTH, WIDTH, STATES, BLOCK, SOFTPLUS = range(3, 8)
U, DELTA, Z, OUT, B, C, GRAD_OUT, GRAD_U, GRAD_DELTA, GRAD_Z = range(8, 38, 3)
A, SKIP, BIAS, FIRST, LAST, SAVED, GRAD_A, GRAD_SKIP, GRAD_BIAS, GRAD_FIRST, GRAD_LAST, GRAD_B, GRAD_C = range(38, 51)
ARGUMENTS = 51
CHUNK = 32  # tokens between kept states
FIRST_LEVEL = 4096  # states of a block at most: with the rates 32 KiB of float32
_LOG2E = 1 / math.log(2)


@njit(**FAST)
def _row(a, name, sequence, token, first, like, count):
    """Channels first .. first + count of one token of the tensor `name`."""
    return strip(a[name] + (sequence * a[name + 1] + token * a[name + 2] + first) * a[ITEM], like, count)


@njit(**FAST)
def _vector(a, name, first, count, padded, like):
    """Entries first .. first + count of a contiguous vector, zeros behind them and where it is not given."""
    vector = np.zeros(padded, dtype=type(like))
    if a[name]:
        vector[:count] = strip(a[name] + first * a[ITEM], like, count)
    return vector


@njit(**FAST)
def _load_states(a, name, row, lanes, states, like, target):
    """target (N, padded) ← rows row .. row + lanes of a contiguous (rows, N) array; zeros where it is not given."""
    target[:] = 0
    if a[name]:
        source = strip(a[name] + row * states * a[ITEM], like, lanes * states)
        for n in range(states):
            for j in range(lanes):
                target[n, j] = source[j * states + n]


@njit(**FAST)
def _store_states(a, name, row, lanes, states, like, source):
    """The inverse of `_load_states`; nothing where the array is not given."""
    if a[name]:
        target = strip(a[name] + row * states * a[ITEM], like, lanes * states)
        for n in range(states):
            for j in range(lanes):
                target[j * states + n] = source[n, j]


@njit(**FAST)
def _place(a, task):
    """(sequence, first channel, channels, channels rounded up to whole vectors) of a task."""
    blocks = (a[WIDTH] + a[BLOCK] - 1) // a[BLOCK]
    sequence, first = task // blocks, (task % blocks) * a[BLOCK]
    lanes = min(a[BLOCK], a[WIDTH] - first)
    return sequence, first, lanes, (lanes + LANES - 1) // LANES * LANES


@njit(**FAST)
def _read_token(delta, bias, u, skip, soft, lanes, d, du, total):
    """Step sizes d, inputs d u, and the sum that becomes y, begun with D u."""
    if soft:
        for j in range(lanes):
            d[j] = softplus(delta[j] + bias[j])
    else:
        for j in range(lanes):
            d[j] = delta[j] + bias[j]
    for j in range(lanes):
        du[j] = d[j] * u[j]
        total[j] = skip[j] * u[j]


@njit(**FAST)
def _advance(rates, d, du, b, c, h, total):
    """One token: h ← 2^(d rates) h + du b, total += c h."""
    for n in range(h.shape[0]):
        b_n, c_n = b[n], c[n]
        for j in range(h.shape[1]):
            value = exp2(d[j] * rates[n, j]) * h[n, j] + du[j] * b_n
            h[n, j] = value
            total[j] += value * c_n


@njit(**FAST)
def _gate(total, z, gated, out):
    if gated:
        for j in range(len(out)):
            out[j] = total[j] * (z[j] * sigmoid(z[j]))
    else:
        for j in range(len(out)):
            out[j] = total[j]


@njit(**FAST)
def _forward_task(a, task, like):
    sequence, first, lanes, padded = _place(a, task)
    kind, states, length = type(like), a[STATES], a[LENGTH]
    chunks = (length + CHUNK - 1) // CHUNK
    h, rates = np.empty((states, padded), dtype=kind), np.empty((states, padded), dtype=kind)
    _load_states(a, FIRST, sequence * a[WIDTH] + first, lanes, states, like, h)
    _load_states(a, A, first, lanes, states, like, rates)
    rates *= kind(_LOG2E)
    skip, bias = _vector(a, SKIP, first, lanes, padded, like), _vector(a, BIAS, first, lanes, padded, like)
    d, du, total = np.zeros(padded, dtype=kind), np.zeros(padded, dtype=kind), np.zeros(padded, dtype=kind)
    for t in range(length):
        if a[SAVED] and t % CHUNK == 0:
            place = (task * chunks + t // CHUNK) * states * a[BLOCK]
            strip(a[SAVED] + place * a[ITEM], like, states * padded)[:] = h.reshape(-1)
        u, delta = _row(a, U, sequence, t, first, like, lanes), _row(a, DELTA, sequence, t, first, like, lanes)
        _read_token(delta, bias, u, skip, a[SOFTPLUS] != 0, lanes, d, du, total)
        b, c = _row(a, B, sequence, t, 0, like, states), _row(a, C, sequence, t, 0, like, states)
        _advance(rates, d, du, b, c, h, total)
        z = _row(a, Z, sequence, t, first, like, lanes)
        _gate(total, z, a[Z] != 0, _row(a, OUT, sequence, t, first, like, lanes))
    _store_states(a, LAST, sequence * a[WIDTH] + first, lanes, states, like, h)


@njit(**SUMS)
def _step_task(a, task, like):
    """One token, in place on the states LAST (B, D, N); here the states of a channel are the SIMD lanes."""
    sequence, first, lanes, padded = _place(a, task)
    kind, states = type(like), a[STATES]
    skip, bias = _vector(a, SKIP, first, lanes, padded, like), _vector(a, BIAS, first, lanes, padded, like)
    d, du, total = np.zeros(padded, dtype=kind), np.zeros(padded, dtype=kind), np.zeros(padded, dtype=kind)
    u, delta = _row(a, U, sequence, 0, first, like, lanes), _row(a, DELTA, sequence, 0, first, like, lanes)
    _read_token(delta, bias, u, skip, a[SOFTPLUS] != 0, lanes, d, du, total)
    b, c = _row(a, B, sequence, 0, 0, like, states), _row(a, C, sequence, 0, 0, like, states)
    for j in range(lanes):
        rates = strip(a[A] + (first + j) * states * a[ITEM], like, states)
        h = strip(a[LAST] + (sequence * a[WIDTH] + first + j) * states * a[ITEM], like, states)
        rate, amount, sum_j = d[j] * kind(_LOG2E), du[j], kind(0)
        for n in range(states):
            value = exp2(rate * rates[n]) * h[n] + amount * b[n]
            h[n] = value
            sum_j += value * c[n]
        total[j] += sum_j
    z = _row(a, Z, sequence, 0, first, like, lanes)
    _gate(total, z, a[Z] != 0, _row(a, OUT, sequence, 0, first, like, lanes))


@njit(**FAST)
def _replay(rates, d, du, b, c, before, decay, after, total):
    """`_advance` that keeps the decay 2^(d rates) and writes the new states beside the old ones."""
    for n in range(before.shape[0]):
        b_n, c_n = b[n], c[n]
        for j in range(before.shape[1]):
            kept = exp2(d[j] * rates[n, j])
            value = kept * before[n, j] + du[j] * b_n
            decay[n, j] = kept
            after[n, j] = value
            total[j] += value * c_n


@njit(**SUMS)
def _retreat(grad_y, matrix, d, du, b, c, before, decay, after, g, grad_a, grad_d, grad_du, grad_b, grad_c):
    """One token backwards: g ← decay (g + grad_y c), and what it adds to the gradients of A, d, d u, B_t and C_t."""
    for n in range(g.shape[0]):
        b_n, c_n = b[n], c[n]
        sum_b, sum_c = g.dtype.type(0), g.dtype.type(0)
        for j in range(g.shape[1]):
            g_j = g[n, j] + grad_y[j] * c_n
            sum_c += grad_y[j] * after[n, j]
            sum_b += g_j * du[j]
            grad_du[j] += g_j * b_n
            g_j *= decay[n, j]
            g[n, j] = g_j
            g_j *= before[n, j]
            grad_d[j] += g_j * matrix[n, j]
            grad_a[n, j] += g_j * d[j]
        grad_b[n], grad_c[n] = sum_b, sum_c


@njit(**FAST)
def _gate_backward(grad_out, y, z, gated, grad_y, grad_z):
    """Through out = y silu(z): gradients of y (lanes behind the last channel stay 0) and of z."""
    if gated:
        for j in range(len(grad_out)):
            s = sigmoid(z[j])
            grad_y[j] = grad_out[j] * (z[j] * s)
            grad_z[j] = grad_out[j] * (y[j] * (s + z[j] * (s - s * s)))
    else:
        for j in range(len(grad_out)):
            grad_y[j] = grad_out[j]


@njit(**FAST)
def _token_backward(delta, bias, u, skip, soft, grad_y, d, grad_d, grad_du, grad_skip, grad_bias, grad_u, grad_delta):
    """Through d = softplus(delta + bias), d u and D u."""
    for j in range(len(u)):
        grad_u[j] = grad_du[j] * d[j] + grad_y[j] * skip[j]
        grad_skip[j] += grad_y[j] * u[j]
        grad_delta[j] = grad_d[j] + grad_du[j] * u[j]
    if soft:
        for j in range(len(u)):
            grad_delta[j] *= sigmoid(delta[j] + bias[j])
    for j in range(len(u)):
        grad_bias[j] += grad_delta[j]


@njit(**FAST)
def _replay_chunk(a, task, start, count, like, rates, skip, bias, h, decay, d, du, y):
    """From h[0], the states before token `start`: states, decays and y of `count` tokens again."""
    sequence, first, lanes, _ = _place(a, task)
    states = a[STATES]
    for i in range(count):
        t = start + i
        u, delta = _row(a, U, sequence, t, first, like, lanes), _row(a, DELTA, sequence, t, first, like, lanes)
        b, c = _row(a, B, sequence, t, 0, like, states), _row(a, C, sequence, t, 0, like, states)
        _read_token(delta, bias, u, skip, a[SOFTPLUS] != 0, lanes, d[i], du[i], y[i])
        _replay(rates, d[i], du[i], b, c, h[i], decay[i], h[i + 1], y[i])


@njit(**FAST)
def _retreat_chunk(a, task, start, count, like, matrix, skip, bias, h, decay, d, du, y, g, grad_a, sums):
    """The `count` tokens from `start` in reverse; writes their gradients and adds to those of A, D and the bias."""
    sequence, first, lanes, padded = _place(a, task)
    states, scratch = a[STATES], np.zeros((3, padded), dtype=type(like))
    grad_y, grad_d, grad_du = scratch[0], scratch[1], scratch[2]
    for i in range(count - 1, -1, -1):
        t = start + i
        u, delta = _row(a, U, sequence, t, first, like, lanes), _row(a, DELTA, sequence, t, first, like, lanes)
        b, c = _row(a, B, sequence, t, 0, like, states), _row(a, C, sequence, t, 0, like, states)
        z, grad_z = _row(a, Z, sequence, t, first, like, lanes), _row(a, GRAD_Z, sequence, t, first, like, lanes)
        grad_out = _row(a, GRAD_OUT, sequence, t, first, like, lanes)
        _gate_backward(grad_out, y[i], z, a[Z] != 0, grad_y, grad_z)
        scratch[1:] = 0
        part = (task * a[LENGTH] + t) * states * a[ITEM]
        grad_b, grad_c = strip(a[GRAD_B] + part, like, states), strip(a[GRAD_C] + part, like, states)
        after, before = h[i + 1], h[i]
        _retreat(grad_y, matrix, d[i], du[i], b, c, before, decay[i], after, g, grad_a, grad_d, grad_du, grad_b, grad_c)
        grad_u, soft = _row(a, GRAD_U, sequence, t, first, like, lanes), a[SOFTPLUS] != 0
        grad_delta = _row(a, GRAD_DELTA, sequence, t, first, like, lanes)
        _token_backward(delta, bias, u, skip, soft, grad_y, d[i], grad_d, grad_du, sums[0], sums[1], grad_u, grad_delta)


@njit(**FAST)
def _backward_task(a, task, like):
    sequence, first, lanes, padded = _place(a, task)
    kind, states, length, line = type(like), a[STATES], a[LENGTH], sequence * a[WIDTH] + first
    chunks = (length + CHUNK - 1) // CHUNK
    matrix, g = np.empty((states, padded), dtype=kind), np.empty((states, padded), dtype=kind)
    _load_states(a, A, first, lanes, states, like, matrix)
    _load_states(a, GRAD_LAST, line, lanes, states, like, g)
    rates, grad_a = matrix * kind(_LOG2E), np.zeros((states, padded), dtype=kind)
    skip, bias = _vector(a, SKIP, first, lanes, padded, like), _vector(a, BIAS, first, lanes, padded, like)
    h, decay = np.empty((CHUNK + 1, states, padded), dtype=kind), np.empty((CHUNK, states, padded), dtype=kind)
    tokens, sums = np.zeros((3, CHUNK, padded), dtype=kind), np.zeros((2, padded), dtype=kind)
    d, du, y = tokens[0], tokens[1], tokens[2]
    for chunk in range(chunks - 1, -1, -1):
        start, count = chunk * CHUNK, min(CHUNK, length - chunk * CHUNK)
        saved = a[SAVED] + (task * chunks + chunk) * states * a[BLOCK] * a[ITEM]
        h[0] = strip(saved, like, states * padded).reshape((states, padded))
        _replay_chunk(a, task, start, count, like, rates, skip, bias, h, decay, d, du, y)
        _retreat_chunk(a, task, start, count, like, matrix, skip, bias, h, decay, d, du, y, g, grad_a, sums)
    _store_states(a, GRAD_A, line, lanes, states, like, grad_a)
    _store_states(a, GRAD_FIRST, line, lanes, states, like, g)
    strip(a[GRAD_SKIP] + line * a[ITEM], like, lanes)[:] = sums[0, :lanes]
    strip(a[GRAD_BIAS] + line * a[ITEM], like, lanes)[:] = sums[1, :lanes]


def _entries(zero, stamp: int) -> tuple:
    def forward(pointer):
        drain(pointer, ARGUMENTS, _forward_task, zero, stamp)

    def step(pointer):
        drain(pointer, ARGUMENTS, _step_task, zero, stamp)

    def backward(pointer):
        drain(pointer, ARGUMENTS, _backward_task, zero, stamp)

    return forward, step, backward


forward, step, backward = make_kernels(_entries)
