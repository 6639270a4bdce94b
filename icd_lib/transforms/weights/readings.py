"""What the Linears of a block read, stage after stage, without computing what comes behind."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from icd_lib.models.adapter import Block
from icd_lib.transforms.streams import ResidualStream


class _Reached(Exception):  # noqa: N818 (no error)
    """The pass came to the module whose input was wanted."""


@torch.inference_mode()
def readings(block: Block, stream: ResidualStream) -> list[list[nn.Linear]]:
    """The Linears inside the block before its consumer, in the order they are called; one list for each input.

    Found on the first batch. A Linear that is never called, or whose weight is used past it, is not among them.
    """
    stages: list[tuple[torch.Tensor, list[nn.Linear]]] = []
    inside = [part for part in _parts(block.inner) if isinstance(part, nn.Linear) and part is not block.consumer]

    def note(linear: nn.Module, args: tuple) -> None:
        for read, linears in stages:
            if args[0] is read:
                linears.append(linear)
                return
        stages.append((args[0], [linear]))

    handles = [linear.register_forward_pre_hook(note) for linear in inside]
    try:
        block.inner(stream.hidden[0], stream.contexts[0])
    finally:
        for handle in handles:
            handle.remove()
    return [linears for _, linears in stages]


@torch.inference_mode()
def inputs_of(linear: nn.Linear, block: Block, stream: ResidualStream) -> Iterator[torch.Tensor]:
    """What a Linear inside the block reads, (tokens, in) per batch, valid tokens only."""
    for hidden, context, valid in zip(stream.hidden, stream.contexts, stream.valid, strict=True):
        yield _input_of(linear, block, hidden, context)[valid]


def _input_of(linear: nn.Linear, block: Block, hidden: torch.Tensor, context: object) -> torch.Tensor:
    found = []

    def note(_linear: nn.Module, args: tuple) -> None:
        found.append(args[0])
        raise _Reached

    handle = linear.register_forward_pre_hook(note)
    try:
        block.inner(hidden, context)
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


def _parts(inner: Callable) -> list[nn.Module]:
    """The modules inside what a block's `inner`, a partial or a module, runs; each once."""
    held = [inner, *getattr(inner, "args", ())]
    found = [part for module in held if isinstance(module, nn.Module) for part in module.modules()]
    return list(dict.fromkeys(found))
