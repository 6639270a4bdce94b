"""The residual stream of a model over calibration batches, advanced one block at a time.

Pruning layer by layer needs each block's input as the network before it *now* computes it. Holding the stream and
moving it forward costs one forward pass in total, where re-running the model for every block would cost one each.
"""

from collections.abc import Iterable

import torch

from icd_lib.errors import TransformError
from icd_lib.models.adapter import Adapter, Block


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
            self.valid.append(torch.ones(hidden.shape[:2], dtype=torch.bool) if mask is None else mask.bool())
        if not self.hidden:
            raise TransformError("calibration is empty: pass at least one batch of the model's inputs")

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
