"""What the compiled kernels are written with: vectorisable exp, sigmoid and softplus, raw memory, one shared counter.

libm's functions are calls, and a call keeps a loop scalar; these are a dozen multiply-adds that LLVM vectorises. In
float32 the largest relative error is 1e-7 (`exp2`), 2e-7 (`sigmoid`) and 3e-7 (`softplus`); in float64 they are libm's.
The polynomials are minimax fits (Lawson's iteration) with the constant term held at 1, so that 2^0 is 1.
"""

import math

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic, overload

# 'contract' allows fused multiply-adds; nothing may be reassociated, so every run gives the same bits. Division by zero
# gives infinity, as in torch: Python's check would keep the loops scalar.
FAST = {"fastmath": {"contract"}, "error_model": "numpy"}
# Sums over channels may be split over SIMD lanes: an order fixed when compiling, the same for every thread count.
SUMS = {"fastmath": {"contract", "reassoc", "nsz"}, "error_model": "numpy"}

_F = np.float32
_ROUND = _F(1.5 * 2**23 + 127)  # adding it leaves round(x) + 127, a biased exponent, in the low bits
_LOW, _HIGH = _F(-127), _F(128)  # powers of two that give exactly 0 and infinity
_P2 = tuple(
    map(_F, (0.6931472028550835, 0.2402264791362623, 0.05550332471096326, 0.009618437357843642, 0.001339887442347689))
)
_P2_LAST = _F(0.0001535336188577871)
_PE = tuple(
    map(_F, (1.0000000321650837, 0.4999999420904093, 0.1666643126252553, 0.04166800203647902, 0.008374155317415595))
)
_PE_LAST = _F(0.001384365348460659)
_PL = tuple(map(_F, (0.3333333775018454, 0.1999944417738393, 0.1430829836998575, 0.1071537039101019)))
_PL_LAST = _F(0.12144778936106428)
_LOG2E, _LN2_HIGH, _LN2_LOW = _F(1 / math.log(2)), _F(0.693359375), _F(-2.12194440e-4)  # Cody & Waite's split of ln 2
_ONE, _TWO, _ZERO = _F(1), _F(2), _F(0)
_SHIFT = np.int32(23)


@intrinsic
def _as_int(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@intrinsic
def _as_float(typingctx, x):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _pointer(typingctx, address, like):
    """The integer `address` as a pointer to elements of the type of `like`."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), codegen


@intrinsic
def claim(typingctx, pointer):
    """The next task, a number nobody else gets: atomically add 1 to the int64 at `pointer`, return the value before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.CPointer(types.int64)), codegen


@njit(**FAST)
def strip(address, like, count):
    """`count` elements of the type of `like` at a raw address, as an array."""
    return carray(_pointer(address, like), count)


@njit(**FAST)
def _exp2_f32(x):
    """2^x = 2^n 2^f with n = round(x); exact 0 below −127, infinity above 127.5, NaN stays NaN."""
    x = _LOW if x < _LOW else x
    x = _HIGH if x > _HIGH else x
    biased = x + _ROUND
    f = x - (biased - _ROUND)
    a, b, c, d, e = _P2
    p = _ONE + f * (a + f * (b + f * (c + f * (d + f * (e + f * _P2_LAST)))))
    return p * _as_float(_as_int(biased) << _SHIFT)


@njit(**FAST)
def _exp_f32(x):
    """e^x with ln 2 in two parts, so that the error does not grow with |x|."""
    t = x * _LOG2E
    t = _LOW if t < _LOW else t
    t = _HIGH if t > _HIGH else t
    biased = t + _ROUND
    n = biased - _ROUND
    f = (x - n * _LN2_HIGH) - n * _LN2_LOW
    f = _ZERO if n <= _LOW else f
    a, b, c, d, e = _PE
    p = _ONE + f * (a + f * (b + f * (c + f * (d + f * (e + f * _PE_LAST)))))
    return p * _as_float(_as_int(biased) << _SHIFT)


@njit(**FAST)
def _sigmoid_f32(x):
    return _ONE / (_ONE + _exp_f32(-x))


@njit(**FAST)
def _softplus_f32(x):
    """max(x, 0) + log1p(e) with e = exp(−|x|); log1p(e) = 2 artanh(s), s = e / (2 + e) ≤ 1/3."""
    e = _exp_f32(-abs(x))
    s = e / (_TWO + e)
    v = s * s
    a, b, c, d = _PL
    tail = _TWO * s * (_ONE + v * (a + v * (b + v * (c + v * (d + v * _PL_LAST)))))
    return (_ZERO if x < _ZERO else x) + tail


@njit(**FAST)
def _exp2_f64(x):
    return 2.0**x


@njit(**FAST)
def _sigmoid_f64(x):
    return 1.0 / (1.0 + math.exp(-x))


@njit(**FAST)
def _softplus_f64(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def exp2(x):
    """2^x in the type of x, float32 or float64."""


def sigmoid(x):
    """1 / (1 + e^−x) in the type of x, float32 or float64."""


def softplus(x):
    """log(1 + e^x) in the type of x, float32 or float64."""


def _dispatch(function, single, double):
    """Let `function` stand for `single` on float32 and `double` on float64 in compiled code."""

    @overload(function)
    def choose(x):
        if x == types.float32:
            return lambda x: single(x)
        return lambda x: double(x)


_dispatch(exp2, _exp2_f32, _exp2_f64)
_dispatch(sigmoid, _sigmoid_f32, _sigmoid_f64)
_dispatch(softplus, _softplus_f32, _softplus_f64)
