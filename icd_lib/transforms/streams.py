"""The residual stream of a model over calibration batches, advanced one block at a time.

Pruning layer by layer needs each block's input as the network before it *now* computes it. Holding the stream and
moving it forward costs one forward pass in total, where re-running the model for every block would cost one each.
"""

from collections.abc import Iterable, Iterator

import psutil
import torch

from icd_lib.axes.verify import first_rows
from icd_lib.errors import TransformError
from icd_lib.models.adapter import Adapter, Block

KEPT_SHARE = 0.25  # of the free memory


def room(device: torch.device) -> float:
    """Bytes on a device that one thing may take which is kept from attempt to attempt only to save time."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return KEPT_SHARE * free


class Goals:
    """What a pruned network is to follow: the target's residual sums (B, L, D) of every block on every batch.

    Computed block by block with the first use, and kept for the next where memory allows.
    """

    def __init__(self, target: Adapter, batches: list[dict]):
        self.target, self.batches = target, batches
        self._kept: list[list[torch.Tensor]] = []

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        """The sums of one block after the other."""
        if self._kept:
            yield from self._kept
            return
        stream, blocks, goals = ResidualStream(self.target, self.batches), list(self.target.blocks()), []
        size = len(blocks) * sum(hidden.numel() * hidden.element_size() for hidden in stream.hidden)
        keep = size <= room(stream.hidden[0].device)
        for block in blocks:
            sums = stream.sums(block, stream.inner(block))
            stream.advance(block, sums)
            if keep:
                goals.append(sums)
            yield sums
        self._kept = goals


class ResidualStream:
    """Hidden states (B, L, D) per batch, with the blocks' contexts and the valid-token masks."""

    @torch.inference_mode()
    def __init__(self, adapter: Adapter, batches: Iterable[dict]):
        self.hidden, self.contexts, self.valid = [], [], []
        for inputs in batches:
            hidden, context = adapter.embed(inputs)
            mask = inputs.get("attention_mask")
            self.hidden.append(hidden)
            self.contexts.append(context)
            everything = torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
            self.valid.append(everything if mask is None else mask.bool())
        if not self.hidden:
            raise TransformError("calibration is empty: pass at least one batch of the model's inputs")

    @classmethod
    def of_one_row(cls, adapter: Adapter, batches: list[dict]) -> "ResidualStream":
        """The stream of one text alone: enough to see which parts of a block are called, and with what."""
        return cls(adapter, [first_rows(batch, 1) for batch in batches[:1]])

    def run(self, block: Block) -> None:
        """Move the stream past the block, and keep nothing of it."""
        self.advance(block, self.sums(block, self.inner(block)))

    @torch.inference_mode()
    def inner(self, block: Block) -> list[torch.Tensor]:
        """What the block's consumer reads, per batch."""
        return [block.inner(hidden, context) for hidden, context in zip(self.hidden, self.contexts, strict=True)]

    @torch.inference_mode()
    def sums(self, block: Block, inner: list[torch.Tensor]) -> list[torch.Tensor]:
        """Consumer output plus residual, before `finish`, per batch."""
        return [block.consumer(a) + hidden for a, hidden in zip(inner, self.hidden, strict=True)]

    @torch.inference_mode()
    def advance(self, block: Block, sums: list[torch.Tensor]) -> None:
        """Move the stream past the block."""
        self.hidden = [block.finish(total) for total in sums]

    def flat(self, tensors: list[torch.Tensor]) -> Iterable[torch.Tensor]:
        """Valid tokens only, (tokens, width) per batch."""
        return (tensor[mask] for tensor, mask in zip(tensors, self.valid, strict=True))
