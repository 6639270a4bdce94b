"""What an algorithm may ask of a model; adapters know models, algorithms do not."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from icd_lib.axes.axis import Axis
from icd_lib.errors import AxisError


@dataclass(frozen=True)
class Reader:
    """A Linear inside a block that reads the block's axis before the consumer does (Mamba's x_proj reads channels).

    `inputs(h, context)` returns what it reads, shape (B, L, units × unit).
    """

    linear: nn.Linear
    inputs: Callable[[torch.Tensor, object], torch.Tensor]


@dataclass(frozen=True)
class Terms:
    """An axis whose elements add up to what the block's consumer reads (Mamba's state dimensions), besides a rest.

    `parts(h, context)` yields each element's summand, shape (B, L, inner). `scale(factors)` multiplies the summands by
    factors (size,) from then on, in place. `consumer` is the block's.
    """

    axis: str
    kind: str
    layer: int
    elements: int
    consumer: nn.Linear
    parts: Callable[[torch.Tensor, object], Iterator[torch.Tensor]]
    scale: Callable[[torch.Tensor], None]
    unit: int = 1

    def weights(self) -> torch.Tensor:
        """What each summand is multiplied by, float64 (1, elements + 1); the last column, a bias, is 0."""
        return torch.cat([torch.ones(1, self.elements), torch.zeros(1, 1)], 1).double()


@dataclass(frozen=True)
class Attention:
    """Softmax attention whose heads all have `head_size` dimensions: rows of the Linears, head after head.

    What scales the scores stays when the heads shrink; `set_head_size` notes their new size beside the weights.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    head_size: int
    set_head_size: Callable[[int], None]

    @property
    def heads(self) -> int:
        return self.query.out_features // self.head_size


@dataclass(frozen=True)
class Block:
    """One residual block: `h_next = finish(consumer(inner(h, context)) + h)`.

    `inner(h, context)` returns what the consumer reads, shape (B, L, units × unit); the axis's elements are groups of
    `unit` consecutive columns of it. `finish` is the LayerNorm of a post-norm model, the identity of a pre-norm one.
    `attention` is what `inner` does, where that is attention.
    """

    axis: str
    kind: str
    layer: int
    unit: int
    consumer: nn.Linear
    inner: Callable[[torch.Tensor, object], torch.Tensor]
    finish: Callable[[torch.Tensor], torch.Tensor]
    readers: tuple[Reader, ...] = ()
    terms: tuple[Terms, ...] = ()
    attention: Attention | None = None

    def weights(self) -> torch.Tensor:
        """[weight | bias] of the consumer in float64 on the CPU, shape (out, in + 1)."""
        linear = self.consumer
        bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
        return torch.cat([linear.weight.detach(), bias.detach()[:, None]], dim=1).double().cpu()

    @property
    def elements(self) -> int:
        return self.consumer.in_features // self.unit

    def forward(self, hidden: torch.Tensor, context: object) -> torch.Tensor:
        return self.finish(self.consumer(self.inner(hidden, context)) + hidden)


class Adapter(ABC):
    """The model's axes as a table, and its residual stream one block at a time."""

    def __init__(self, model: nn.Module):
        self.model = model

    @staticmethod
    @abstractmethod
    def accepts(model: nn.Module) -> bool:
        """Whether this adapter knows the model's family."""

    @abstractmethod
    def axes(self) -> list[Axis]:
        """Every axis of the model, not yet verified."""

    @abstractmethod
    def embed(self, inputs: dict) -> tuple[torch.Tensor, object]:
        """Hidden state before the first block, shape (B, L, D), and the context the blocks need (masks)."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """The residual blocks in the order they run."""

    def prunable(self) -> Iterator[Terms | Block]:
        """Everything whose elements can be removed: every block, after the terms inside it."""
        for block in self.blocks():
            yield from (*block.terms, block)

    @abstractmethod
    def trunk(self) -> nn.Module:
        """The module that holds all blocks (and neither embeddings nor heads)."""

    def max_tokens(self) -> int | None:
        """The longest input that the model has positions for; None where any length is."""
        return None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """Next-token logits (B, L, V) from the stream after the last block; None for a model without."""
        return None

    def axis(self, name: str) -> Axis:
        """The axis called `name`, or `AxisError`."""
        axes = {axis.name: axis for axis in self.axes()}
        if name not in axes:
            near = difflib.get_close_matches(name, axes, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise AxisError(f"{type(self.model).__name__} has no axis {name!r}; {hint}icd.find_axes lists them")
        return axes[name]
