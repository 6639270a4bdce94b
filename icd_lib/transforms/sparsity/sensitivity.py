"""Which layer and axis hurts: loss curves of every block, scaled by what an error there does to the network's output.

The layer-wise loss of OBS says how well a block can be imitated with fewer elements; how much that matters differs by
layer. One probe per block (prune it alone, run the rest of the network) measures the exchange rate.
"""

from dataclasses import dataclass

import numpy as np
import torch

from icd_lib.axes.kinds import KINDS
from icd_lib.errors import TransformError
from icd_lib.models.adapter import Adapter, Block, Terms
from icd_lib.transforms.sparsity.allocate import LossCurve
from icd_lib.transforms.sparsity.obs import Elimination, Moments, eliminate, restrict
from icd_lib.transforms.streams import ResidualStream

LEAST_ENERGY = 1e-12  # of the squared sum: below that it is rounding that varies


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
    eliminated = {}
    for block in adapter.prunable():
        gram, weights = _in_order(block, moments[block.axis], ridge, orders.get(block.axis))
        group = tile[block.kind]
        eliminated[block.axis] = eliminate(gram, weights, block.unit * group, block.elements // group - 1)
    return eliminated


def _in_order(block: Block | Terms, moments: Moments, ridge: float, order) -> tuple[torch.Tensor, torch.Tensor]:
    gram, weights = moments.damped(ridge), block.weights()
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
    """Predicted output loss of each axis at every multiple of `steps[kind]` elements, and at full size.

    At full size alone where no other is possible: one step or less, or no whole number of the groups `tile[kind]`.
    """
    curves = []
    for block in adapter.prunable():
        loss = np.asarray(paths[block.axis].loss) / max(moments[block.axis].energy, 1e-12)
        group, step = tile[block.kind], steps[block.kind]
        kept = np.arange(step, block.elements, step)
        if block.elements % group:  # groups of a layout have to be whole
            kept = kept[:0]
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
        stream.run(block)
    reference = torch.cat(list(stream.flat(stream.hidden)))
    energy = float((reference - reference.mean(0)).square().sum())
    if not float(reference.square().sum()) * LEAST_ENERGY < energy < np.inf:
        raise TransformError(
            f"the model's last hidden state does not vary over the calibration's tokens (its energy is {energy:g}), so "
            "nothing can be learned from them; pass other text, and more"
        )
    rows = []
    for index, block in enumerate(blocks):
        for item in (*block.terms, block):
            path, moment = paths[item.axis], moments[item.axis]
            kept = max(1, round(item.elements * KINDS[item.kind].probe_keep))
            columns = path.alive(item.elements, kept).repeat_interleave(item.unit).nonzero()[:, 0]
            weights = restrict(moment.damped(ridge), item.weights(), columns).to(block.consumer.weight)
            stream.hidden = snapshots[index]
            probe = _sums_of_terms if isinstance(item, Terms) else _sums_of_columns
            stream.advance(block, probe(stream, block, item, columns, weights))
            for later in blocks[index + 1 :]:
                stream.run(later)
            error = float((torch.cat(list(stream.flat(stream.hidden))) - reference).square().sum()) / energy
            loss = path.loss[item.elements - kept] / max(moment.energy, 1e-12)
            rows.append(BlockSensitivity(item.axis, item.kind, kept, loss, error))
    return rows


def _sums_of_columns(stream: ResidualStream, block: Block, _item, columns, weights) -> list[torch.Tensor]:
    """The block's sums when its consumer reads only `columns`, by `weights` (out, columns + 1)."""
    inner, columns = stream.inner(block), columns.to(weights.device)
    return [a[..., columns] @ weights[:, :-1].T + weights[:, -1] + h for a, h in zip(inner, stream.hidden, strict=True)]


def _sums_of_terms(stream: ResidualStream, block: Block, item: Terms, columns, weights) -> list[torch.Tensor]:
    """The block's sums when of its terms only `columns` are left, scaled by `weights` (1, columns + 1)."""
    factors = torch.zeros(item.elements)
    factors[columns] = weights[0, :-1].float().cpu()
    sums = []
    for inner, hidden, context in zip(stream.inner(block), stream.hidden, stream.contexts, strict=True):
        for part, factor in zip(item.parts(hidden, context), factors, strict=True):
            inner = inner + (factor - 1) * part
        sums.append(block.consumer(inner) + hidden)
    return sums
