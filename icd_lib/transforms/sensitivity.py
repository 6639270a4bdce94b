"""Which layer and axis hurts: loss curves of every block, scaled by what an error there does to the network's output.

The layer-wise loss of OBS says how well a block can be imitated with fewer elements; how much that matters differs by
layer. One probe per block (prune it alone, run the rest of the network) measures the exchange rate.
"""

from dataclasses import dataclass

import numpy as np
import torch

from icd_lib.axes.kinds import KINDS
from icd_lib.models.adapter import Adapter, Block
from icd_lib.transforms.allocate import LossCurve
from icd_lib.transforms.obs import Elimination, Moments, affine, eliminate, restrict
from icd_lib.transforms.streams import ResidualStream


@dataclass(frozen=True)
class BlockSensitivity:
    """`output_error`: relative squared error of the final hidden state when only this block is pruned to `probe_kept`.

    `block_loss` is the block's own relative loss at that point; their ratio is the exchange rate.
    """

    axis: str
    kind: str
    probe_kept: int
    block_loss: float
    output_error: float

    @property
    def rate(self) -> float:
        return self.output_error / max(self.block_loss, 1e-9)


def eliminations(
    adapter: Adapter, moments: dict[str, Moments], tile: dict[str, int], ridge: float, orders: dict[str, np.ndarray]
) -> dict[str, Elimination]:
    """Full elimination path of every block at the granularity `tile[kind]`, in the layout `orders[axis]`."""
    found = {}
    for block in adapter.blocks():
        gram, weights = _in_order(block, moments[block.axis], ridge, orders.get(block.axis))
        group = tile[block.kind]
        found[block.axis] = eliminate(gram, weights, block.unit * group, block.elements // group - 1)
    return found


def _in_order(block: Block, moments: Moments, ridge: float, order) -> tuple[torch.Tensor, torch.Tensor]:
    gram, weights = moments.damped(ridge), affine(block.consumer)
    if order is None:
        return gram, weights
    columns = torch.as_tensor(order)[:, None] * block.unit + torch.arange(block.unit)
    index = torch.cat([columns.reshape(-1), torch.tensor([len(gram) - 1])])
    return gram[index][:, index], weights[:, index]


def loss_curves(
    adapter: Adapter,
    paths: dict[str, Elimination],
    moments: dict[str, Moments],
    rates: dict[str, float],
    tile: dict[str, int],
    steps: dict[str, int],
) -> list[LossCurve]:
    """Predicted output loss of each axis at every multiple of `steps[kind]` elements (and at full size)."""
    curves = []
    for block in adapter.blocks():
        loss = np.asarray(paths[block.axis].loss) / max(moments[block.axis].energy, 1e-12)
        group, step = tile[block.kind], steps[block.kind]
        kept = np.arange(step, block.elements + 1, step)
        if kept[-1] != block.elements:
            kept = np.append(kept, block.elements)
        removed = (block.elements - kept) // group
        curves.append(LossCurve(block.axis, block.kind, kept, rates[block.axis] * loss[removed]))
    return curves


@torch.inference_mode()
def measure_sensitivity(
    adapter: Adapter, moments: dict[str, Moments], paths: dict[str, Elimination], ridge: float, batches: list[dict]
) -> list[BlockSensitivity]:
    """Prune each block alone (single elements, compensated) and measure the error of the final hidden state."""
    blocks = list(adapter.blocks())
    stream = ResidualStream(adapter, batches)
    snapshots = []
    for block in blocks:
        snapshots.append(list(stream.hidden))
        stream.advance(block, stream.sums(block, stream.inner(block)))
    reference = torch.cat(list(stream.flat(stream.hidden)))
    energy = float((reference - reference.mean(0)).square().sum())
    found = []
    for index, block in enumerate(blocks):
        path, moment = paths[block.axis], moments[block.axis]
        kept = max(1, round(block.elements * KINDS[block.kind].probe_keep))
        columns = path.alive(block.elements, kept).repeat_interleave(block.unit).nonzero()[:, 0]
        weights = restrict(moment.damped(ridge), affine(block.consumer), columns).to(block.consumer.weight.dtype)
        stream.hidden = snapshots[index]
        inner = stream.inner(block)
        sums = [
            a[..., columns] @ weights[:, :-1].T + weights[:, -1] + h for a, h in zip(inner, stream.hidden, strict=True)
        ]
        stream.advance(block, sums)
        for later in blocks[index + 1 :]:
            stream.advance(later, stream.sums(later, stream.inner(later)))
        error = float((torch.cat(list(stream.flat(stream.hidden))) - reference).square().sum()) / energy
        loss = path.loss[block.elements - kept] / max(moment.energy, 1e-12)
        found.append(BlockSensitivity(block.axis, block.kind, kept, loss, error))
    return found
