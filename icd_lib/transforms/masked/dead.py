"""Which elements of a model's axes do nothing, or always the same: found from zero weights, proved by probing.

An element is dead if its consumer does not read it (its columns are zero), or if weights that make it are zero and what
reaches the consumer is the same for every input; that constant then belongs into the consumer's bias. Whatever else
reads the element (`Block.readers`) has to get nothing from it either.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from icd_lib.axes.axis import Axis, Slot, slot_index, slot_tensor
from icd_lib.models.adapter import Adapter, Block, Terms

PROBE_SCALES = (1.0, 100.0)  # of the real stream: what is constant there is constant for any text
SAME = 1e-12  # relative, float64: softmax adds to one only up to rounding


@dataclass(frozen=True, eq=False)
class Dead:
    """One axis: `dead` bool (D,); `constant` float64 (D × unit,), what the consumer gets from each dead element."""

    axis: Axis
    dead: np.ndarray
    constant: torch.Tensor

    def permuted(self, order: np.ndarray) -> "Dead":
        """The same of the axis in the order `order` (gather)."""
        constant = self.constant.reshape(self.axis.size, -1)[torch.from_numpy(order)].flatten()
        return replace(self, dead=self.dead[order], constant=constant)

    def sparing_one(self) -> "Dead":
        """The same; of an axis that is dead as a whole the first element is spared, for an axis keeps at least one."""
        return self if not self.dead.all() else replace(self, dead=np.arange(self.axis.size) > 0)


def find_dead(adapter: Adapter, batches: Iterable[dict], seed: int = 0) -> dict[str, Dead]:
    """Axis that can shrink → its dead elements; `adapter` is that of a float64 model, batches are its inputs."""
    axes = {axis.name: axis for axis in adapter.axes() if axis.fixed_because is None}
    items = [item for item in adapter.prunable() if item.axis in axes]
    suspects = {item.axis: _suspects(adapter.model, axes[item.axis]) for item in items}
    spans: dict = defaultdict(_Span)  # by axis, and by axis and reader
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for batch in batches:
            hidden, context = adapter.embed(batch)
            for block in adapter.blocks():
                for scale in (0.0, *PROBE_SCALES):
                    noise = torch.randn(hidden.shape, generator=generator, dtype=hidden.dtype)
                    probe = hidden if scale == 0.0 else noise * (scale * hidden.std())
                    _observe(block, probe, context, suspects, spans)
                hidden = block.forward(hidden, context)
    return {item.axis: _dead_of(item, axes[item.axis], suspects, spans) for item in items}


class _Span:
    """Lowest and highest value of every column seen so far."""

    def __init__(self):
        self.low: torch.Tensor | None = None
        self.high: torch.Tensor | None = None

    def see(self, values: torch.Tensor) -> None:
        low, high = values.flatten(0, -2).aminmax(dim=0)
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def silent(self, axis: Axis, unit: int) -> np.ndarray:
        """Bool (D,): nothing but 0 was seen of the element."""
        if self.low is None:
            return np.zeros(axis.size, dtype=bool)
        return ((self.low == 0) & (self.high == 0)).reshape(axis.size, unit).all(1).numpy()

    def constant(self) -> torch.Tensor:
        """Bool per column; a value that is not finite is no constant."""
        size = torch.maximum(self.low.abs(), self.high.abs())
        return (self.high - self.low) <= SAME * size


def _observe(block: Block, probe: torch.Tensor, context: object, suspects: dict, spans: dict) -> None:
    if block.axis in suspects and suspects[block.axis].any():
        spans[block.axis].see(block.inner(probe, context))
        for reader in block.readers:
            spans[block.axis, reader.linear].see(reader.inputs(probe, context))
    for terms in block.terms:
        if terms.axis in suspects and suspects[terms.axis].any():
            sizes = [part.abs().amax() for part in terms.parts(probe, context)]
            # What counts of a summand is whether it is ever anything but 0.
            spans[terms.axis].see(torch.stack([torch.stack(sizes), torch.zeros(len(sizes))]))


def _dead_of(item: Block | Terms, axis: Axis, suspects: dict, spans: dict) -> Dead:
    dead, constant = np.zeros(axis.size, dtype=bool), torch.zeros(axis.size * item.unit, dtype=torch.float64)
    span = spans[axis.name]
    if span.low is not None:
        same = span.constant().reshape(axis.size, item.unit).all(1)
        dead |= suspects[axis.name] & same.numpy()
        constant = torch.where(same.repeat_interleave(item.unit), span.low, 0.0)
    if isinstance(item, Block):
        if item.consumer.bias is None:  # there is no bias to take a constant
            dead &= ~(constant.reshape(axis.size, item.unit) != 0).any(1).numpy()
        dead |= _unread(item.consumer, axis, item.unit)
        for reader in item.readers:
            dead &= _unread(reader.linear, axis, item.unit) | spans[axis.name, reader.linear].silent(axis, item.unit)
    return Dead(axis, dead, constant)


def _unread(linear: nn.Linear, axis: Axis, unit: int) -> np.ndarray:
    """Bool (D,): all columns of the element are zero."""
    columns = linear.weight.detach().reshape(-1, axis.size, unit)
    return (columns == 0).all(2).all(0).numpy()


def _suspects(model: nn.Module, axis: Axis) -> np.ndarray:
    """Bool (D,): some weight that makes the element is all zero."""
    zero = np.zeros(axis.size, dtype=bool)
    for slot in axis.slots:
        tensor = slot_tensor(model, slot).detach()
        if slot.dim == 0 and tensor.ndim > 1:
            zero |= (slot_parts(tensor, slot, axis.size) == 0).all(2).any(0).numpy()
    return zero


def slot_parts(tensor: torch.Tensor, slot: Slot, size: int) -> torch.Tensor:
    """What a slot holds of every element: (copies, size, block × whatever else the tensor has)."""
    index = slot_index(slot, size, torch.arange(size))
    picked = tensor.movedim(slot.dim, 0)[index].flatten(1)
    return picked.reshape(slot.copies, size, -1)
