"""What a process has set for all of torch, numpy and Python: our own while we compute, the caller's in their functions.

A function of the caller (`quality`, `progress`, a loader of batches) may draw random numbers, switch gradients off or
set threads, and the caller may have set a default dtype that our sums must not follow. Neither reaches the other.
"""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from icd_lib.runtimes.exactness import multiply_in_full, read_exactness, restore_exactness

# How each is read and set; they are set back only where they were changed.
_SWITCHES: tuple[tuple[Callable, Callable], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, lambda device: torch.set_default_device(None if device.type == "cpu" else device)),
    (torch.get_num_threads, torch.set_num_threads),
    (read_exactness, restore_exactness),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    (lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on)),
    (np.geterr, lambda errors: np.seterr(**errors)),
)
_GENERATORS: tuple[tuple[Callable, Callable], ...] = (
    (torch.get_rng_state, torch.set_rng_state),
    (np.random.get_state, np.random.set_state),  # noqa: NPY002 (the caller's, not ours)
    (random.getstate, random.setstate),
)


@dataclass(frozen=True)
class Surroundings:
    """Switches and random generators as they were at one moment."""

    switches: tuple
    generators: tuple

    @classmethod
    def now(cls) -> "Surroundings":
        return cls(tuple(read() for read, _ in _SWITCHES), tuple(read() for read, _ in _generators()))

    def restore(self) -> None:
        """Make everything as it was then."""
        for (read, write), value in zip(_SWITCHES, self.switches, strict=True):
            if read() != value:
                write(value)
        for (_, write), state in zip(_generators(), self.generators, strict=False):
            write(state)


def _generators() -> tuple[tuple[Callable, Callable], ...]:
    """Those of the CPU, and of CUDA where it is in use."""
    cuda = ((torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all),) if torch.cuda.is_initialized() else ()
    return _GENERATORS + cuda


@dataclass(frozen=True)
class Caller:
    """Runs the caller's functions: every call begins as the caller left things, so that each draws the same numbers."""

    theirs: Surroundings
    inference: bool

    def call(self, function: Callable, *args):
        """`function(*args)` in the caller's surroundings; ours are back afterwards."""
        ours = Surroundings.now()
        try:
            with torch.inference_mode(self.inference):  # it sets whether gradients are on, so the rest comes after it
                self.theirs.restore()
                return function(*args)
        finally:
            ours.restore()

    def wrapped(self, function: Callable) -> Callable:
        """The function, called so."""
        return functools.partial(self.call, function)


@contextlib.contextmanager
def our_own(model: nn.Module) -> Iterator[Caller]:
    """Compute with gradients allowed, in float32 by default, on the CPU, whatever the caller has set.

    At the end, whatever it is, everything is the caller's again: switches, random generators, and which modules of
    their `model` train and which of its parameters take gradients.
    """
    inference, theirs = torch.is_inference_mode_enabled(), Surroundings.now()
    training = [(module, module.training) for module in model.modules()]
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with torch.inference_mode(False):
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            torch.set_autocast_enabled("cpu", False)
            torch.set_autocast_enabled("cuda", False)
            multiply_in_full()
            if torch.get_default_device().type != "cpu":
                torch.set_default_device(None)
            yield Caller(theirs, inference)
    finally:
        theirs.restore()
        for module, mode in training:
            module.training = mode
        for parameter, wanted in trainable:
            if parameter.requires_grad != wanted:
                parameter.requires_grad_(wanted)
