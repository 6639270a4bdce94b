"""Mamba-2: the axes of models built like `transformers.Mamba2Model` (Dao & Gu 2024).

Heads, and the dimensions inside a head, go through a gated RMSNorm that averages over them, so they can be permuted but
not removed; the state dimensions can be removed too. Groups of heads share B and C, so heads move within their group:
an element of `heads.l` is the i-th head of every group.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

from icd_lib.axes.axis import Attribute, Axis, Slot
from icd_lib.models.adapter import Block
from icd_lib.models.families.mamba.adapter import MambaAdapter
from icd_lib.models.families.parts import linear_rows

_NORM = "the gated RMSNorm averages over the channels of a group, so removing some changes the function"


class Mamba2Adapter(MambaAdapter):
    """Axes `heads.l`, `head_dim.l`, `state.l`, `residual` and `vocab` of a Mamba-2 model."""

    mixer = Mamba2Mixer

    def _layer_axes(self, index: int, path: str, mixer: nn.Module) -> list[Axis]:
        return [_heads(index, path, mixer), _head_dim(index, path, mixer), _state(index, path, mixer)]

    def blocks(self) -> Iterator[Block]:
        for index, layer in enumerate(self.layers):
            yield Block(
                axis=f"heads.{index}",
                kind="heads",
                layer=index,
                unit=layer.mixer.head_dim,
                consumer=layer.mixer.out_proj,
                inner=partial(_inner, layer),
                finish=nn.Identity(),
            )


def _heads(index: int, path: str, mixer: nn.Module) -> Axis:
    groups, dim = mixer.n_groups, mixer.head_dim
    times = 2 * mixer.intermediate_size + 2 * groups * mixer.ssm_state_size  # Δ's rows of in_proj start here
    slots = linear_rows(f"{path}.in_proj", mixer.in_proj, block=dim, copies=2 * groups, partial=True)  # z, then x
    slots += linear_rows(f"{path}.in_proj", mixer.in_proj, start=times, copies=groups)
    slots += linear_rows(f"{path}.conv1d", mixer.conv1d, block=dim, copies=groups, partial=True)
    slots += [Slot(f"{path}.{name}", 0, copies=groups) for name in ("A_log", "D", "dt_bias")]
    slots += [
        Slot(f"{path}.norm.weight", 0, dim, copies=groups),
        Slot(f"{path}.out_proj.weight", 1, dim, copies=groups),
    ]
    return Axis(f"heads.{index}", "heads", mixer.num_heads // groups, tuple(slots), fixed_because=_NORM)


def _head_dim(index: int, path: str, mixer: nn.Module) -> Axis:
    heads = mixer.num_heads
    slots = linear_rows(f"{path}.in_proj", mixer.in_proj, copies=2 * heads, partial=True)
    slots += linear_rows(f"{path}.conv1d", mixer.conv1d, copies=heads, partial=True)
    slots += [Slot(f"{path}.norm.weight", 0, copies=heads), Slot(f"{path}.out_proj.weight", 1, copies=heads)]
    return Axis(f"head_dim.{index}", "head_dim", mixer.head_dim, tuple(slots), fixed_because=_NORM)


def _state(index: int, path: str, mixer: nn.Module) -> Axis:
    inner, copies = mixer.intermediate_size, 2 * mixer.n_groups  # B of every group, then C of every group
    slots = linear_rows(f"{path}.in_proj", mixer.in_proj, start=2 * inner, copies=copies)
    slots += linear_rows(f"{path}.conv1d", mixer.conv1d, start=inner, copies=copies)
    numbers = [Attribute(path, "ssm_state_size"), Attribute(path, "conv_dim", copies, inner)]
    numbers += [Attribute(f"{path}.conv1d", name, copies, inner) for name in ("groups", "in_channels", "out_channels")]
    return Axis(f"state.{index}", "state", mixer.ssm_state_size, tuple(slots), tuple(numbers))


def _inner(layer: nn.Module, hidden: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    """What out_proj reads, caught on its way: the stock mixer does not hand it out."""
    caught = []
    handle = layer.mixer.out_proj.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    try:
        layer.mixer(layer.norm(hidden.to(layer.norm.weight.dtype)), attention_mask=context)
    finally:
        handle.remove()
    return caught[0]
