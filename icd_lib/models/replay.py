"""A model's blocks, run one by one, must be what the model computes: compared in float64 on the user's own batches.

Everything that is planned follows the replay (`Adapter.embed`, then every `Block.forward`). A model that only looks
like one of a family (rotary positions, adapters between layers) would be pruned for a function that is not its own.
"""

from collections.abc import Iterator

import torch
from torch import nn

from icd_lib.axes.double import KeepDouble, copied, in_double
from icd_lib.axes.verify import TOLERANCE, relative_error, run_model
from icd_lib.errors import FOREIGN, AxisError
from icd_lib.models.adapter import Adapter
from icd_lib.models.families import find_adapter, supported

ROWS = 2  # of a batch that is compared


@torch.inference_mode()
def check_replay(model: nn.Module, batches: list[dict]) -> None:
    """Raise `AxisError` with the first block whose replay is not what the model computes.

    Compared on a few rows of the batches, padded ones among them, at the tokens that the mask keeps: what every block's
    consumer reads, the stream after a block whose `finish` is a module, and what the trunk hands on; 1e-6 relative. The
    model is not changed. Raises `TransformError` when the model itself does not run on a batch.
    """
    double = copied(model).double()
    adapter = find_adapter(double)
    with KeepDouble():
        for inputs in compared_rows(batches):
            _check(adapter, in_double(inputs))


def compared_rows(batches: list[dict]) -> Iterator[dict]:
    """Rows of the longest batch and of the first one that has padding, for every set of inputs that batches have.

    >>> ids, mask = torch.zeros(3, 4, dtype=torch.long), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    >>> [rows["attention_mask"].tolist() for rows in compared_rows([{"input_ids": ids, "attention_mask": mask}])]
    [[[1, 1, 0, 0], [1, 1, 1, 1]]]
    """
    chosen: dict[tuple, dict] = {}
    for batch in sorted(batches, key=lambda batch: -batch["input_ids"].shape[-1]):
        chosen.setdefault((*sorted(batch), len(_padded(batch)) > 0), batch)
    for batch in chosen.values():
        count = len(batch["input_ids"])
        rows = list(dict.fromkeys([*_padded(batch)[:1], *range(min(count, ROWS))]))[:ROWS]
        yield {
            name: value[rows] if torch.is_tensor(value) and value.ndim and len(value) == count else value
            for name, value in batch.items()
        }


def _padded(batch: dict) -> list[int]:
    mask = batch.get("attention_mask")
    return [] if mask is None or mask.ndim != 2 else (mask == 0).any(1).nonzero().flatten().tolist()


def _check(adapter: Adapter, inputs: dict) -> None:
    name = type(adapter.model).__name__
    own = _own_run(adapter, inputs)
    block = None
    try:
        hidden, context = adapter.embed(inputs)
        kept = _kept(inputs, hidden)
        for block in adapter.blocks():
            read = block.inner(hidden, context)
            _compare(name, block.axis, "what its last Linear reads", read, own.get(block.consumer), kept)
            hidden = block.finish(block.consumer(read) + hidden)
            if block.finish in own:
                _compare(name, block.axis, "the hidden state after it", hidden, own[block.finish], kept)
        _compare(name, block.axis, "the hidden state after the last block", hidden, own.get(adapter.trunk()), kept)
    except torch.OutOfMemoryError:  # not the model's fault
        raise
    except FOREIGN as error:
        where = "its embeddings" if block is None else f"block {block.axis!r}"
        raise AxisError(
            f"{name} is not built like the models of its family: {where} cannot be run alone "
            f"({type(error).__name__}: {error}); supported: {supported()}"
        ) from error


def _compare(
    name: str, axis: str, what: str, replayed: torch.Tensor, own: list[torch.Tensor] | None, kept: torch.Tensor
) -> None:
    if not own:
        raise AxisError(f"{name} does not run what {axis!r} says: {what} was not seen; supported: {supported()}")
    reference = torch.cat(own, 1)  # a layer may run over the tokens in several pieces
    if reference.shape == replayed.shape:
        reference, replayed = reference[kept], replayed[kept]
        if not reference.isfinite().all():
            raise AxisError(f"{name} is not finite at block {axis!r} ({what}); take weights and inputs that are")
        error = relative_error(replayed, reference)
        if error <= TOLERANCE:
            return
        found = f"{what} differs by {error:.1e} relative (allowed {TOLERANCE:.0e})"
    else:
        found = f"{what} has shape {tuple(replayed.shape)} instead of {tuple(reference.shape)}"
    raise AxisError(
        f"block {axis!r} of {name}, run alone, is not what the model computes: {found}. It would be pruned for another "
        f"function, so it is refused and untouched; supported: {supported()}"
    )


def _own_run(adapter: Adapter, inputs: dict) -> dict[nn.Module, list[torch.Tensor]]:
    """What the model's own pass gives the consumers, and gets from what finishes a block and from the trunk."""
    seen: dict[nn.Module, list[torch.Tensor]] = {}
    trunk, handles = adapter.trunk(), []

    def note(key: nn.Module, tensor: object) -> None:
        while isinstance(tensor, tuple | dict):  # of several outputs the first is the hidden state
            tensor = next(iter(tensor.values() if isinstance(tensor, dict) else tensor))
        seen.setdefault(key, []).append(tensor)

    for block in adapter.blocks():
        handles.append(block.consumer.register_forward_pre_hook(lambda module, args: note(module, args[0])))
        if isinstance(block.finish, nn.Module):
            handles.append(block.finish.register_forward_hook(lambda module, args, out: note(module, out)))
    # A list of layers is never called itself: then its last layer gives what goes on.
    end = trunk[-1] if isinstance(trunk, nn.ModuleList) else trunk
    handles.append(end.register_forward_hook(lambda module, args, out: note(trunk, out)))
    try:
        run_model(adapter.model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _kept(inputs: dict, hidden: torch.Tensor) -> torch.Tensor:
    """Which tokens are compared, bool (B, L): those that the mask keeps."""
    mask = inputs.get("attention_mask")
    if mask is None or mask.shape != hidden.shape[:2]:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return mask.bool()
