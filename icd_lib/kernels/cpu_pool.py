"""Run a compiled kernel on torch's own OpenMP threads.

Two pools on the same cores get in each other's way: after a matrix product torch's idle threads spin for milliseconds,
and kernels started on numba's threads would share their cores with that (docs/MAMBA.md has the figures). So kernels are
plain C functions, handed to the OpenMP runtime that torch is linked with. Where torch has none, they run on Python
threads, which the call does not hold back (ctypes releases the interpreter lock).

A kernel is cut into numbered tasks by the shape of its work alone and every thread takes the next number, so neither
the number of threads nor their timing can change a result.
"""

import ctypes
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numba import carray, cfunc, njit, types

from icd_lib.kernels.cpu_math import FAST, claim

# The first entries of every argument vector: task numbers taken so far, tasks, bytes of an element (4 or 8).
NEXT, TASKS, ITEM = range(3)
_SIGNATURE = types.void(types.CPointer(types.int64))


LANES = 16  # a block is whole vectors of this many channels
_WIDEST = 256  # channels of a block: 1 KiB of every token's row
_TASKS = 16  # tasks wanted: several for each of a few threads


def block_width(sequences: int, width: int, most: int = _WIDEST) -> int:
    """Channels of a task: as many as `most` and enough tasks allow, since long pieces of a row are read faster.

    It depends on the shape alone, and with it the order of every sum.

    >>> block_width(2, 1536), block_width(1, 1536), block_width(64, 1536), block_width(1, 5), block_width(2, 1536, 30)
    (192, 96, 256, 16, 16)
    """
    vectors = min(-(-sequences * width // _TASKS // LANES), most // LANES, _WIDEST // LANES)
    return LANES * max(1, vectors)


class Kernel:
    """C functions `void f(int64 *arguments)` for float32 and float64, each compiled on first use and kept on disk."""

    def __init__(self, single: Callable, double: Callable):
        self.functions = {4: single, 8: double}

    def __call__(self, arguments: np.ndarray, threads: int) -> None:
        """Run all tasks of the int64 vector `arguments` (laid out as the kernel says) on up to `threads` threads."""
        call, pointer = _compile(self.functions[int(arguments[ITEM])])
        data = ctypes.c_void_p(arguments.ctypes.data)
        threads = min(threads, int(arguments[TASKS]))
        if threads <= 1:
            call(data)
        elif (parallel := _openmp_parallel()) is not None:
            parallel(pointer, data, threads, 0)
        else:
            helpers = [_python_threads().submit(call, data) for _ in range(threads - 1)]
            call(data)
            for helper in helpers:
                helper.result()


@njit(**FAST)
def drain(pointer, count, task, zero, stamp):
    """Do tasks until none is left: task(arguments, number, zero of the elements' type). `stamp` is not used."""
    arguments = carray(pointer, count)
    number = claim(pointer)
    while number < arguments[TASKS]:
        task(arguments, number, zero)
        number = claim(pointer)


def make_kernels(define: Callable) -> list[Kernel]:
    """Kernels of the functions that `define(zero, stamp)` returns; zero is of the elements' type."""
    single, double = (define(zero, _source_stamp()) for zero in (np.float32(0), np.float64(0)))
    return [Kernel(*pair) for pair in zip(single, double, strict=True)]


def _source_stamp() -> int:
    """Changes when the modules below the kernels do; a kernel that captures it is compiled again then.

    numba's cache looks at captured values and at the file of the kernel itself, not at the functions that it calls.
    """
    folder = Path(__file__).parent
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in ("cpu_math.py", "cpu_pool.py")))
    return int.from_bytes(digest.digest()[:7], "big")


@cache
def _compile(function: Callable) -> tuple[Callable, ctypes.c_void_p]:
    compiled = cfunc(_SIGNATURE, cache=True)(function)
    _KEPT_ALIVE.append(compiled)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address)
    return call, ctypes.c_void_p(compiled.address)


_KEPT_ALIVE: list = []  # ctypes holds addresses only


@cache
def _openmp_parallel() -> Callable | None:
    """`GOMP_parallel(function, data, threads, flags)` of the OpenMP runtime that torch uses; None where it has none.

    The symbol is looked up through torch's library, so that it is found in whatever runtime torch was linked with.
    """
    for library in sorted((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*")):
        try:
            function = ctypes.CDLL(str(library)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        function.restype = None
        return function
    return None


@cache
def _python_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=64, thread_name_prefix="icd-kernel")
