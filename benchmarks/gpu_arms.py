"""The models that `benchmarks/gpu.py` compares: one dense BERT with random weights, and one mask in three layouts.

The mask keeps neurons at random places. "masked" has zeros in place; "tile_dropped" drops what wholly dead tiles there
are in the stored order; "compacted" brings the kept neurons together first and drops the dead tiles then, by the same
function. The last three compute the same thing.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel

from icd_lib.axes.axis import Axis, slot_tensor
from icd_lib.axes.compact import compact
from icd_lib.axes.permutation import pack_alive
from icd_lib.axes.permute import permute
from icd_lib.models.families import find_adapter
from icd_lib.models.shapes import SHAPES

TILE = 64
REMOVED = 0.4  # share of the FFN neurons that the mask takes, before rounding to whole tiles
ARMS = ("dense", "masked", "tile_dropped", "compacted")
WORDS = {
    "dense": "dense",
    "masked": "masked: the dead neurons are zeros in place",
    "tile_dropped": "tiles dropped in stored order (linear)",
    "compacted": "compacted into tiles, dead tiles dropped (iterative)",
    "dense again": "dense again (A/A control)",
}


@dataclass(frozen=True)
class Case:
    """A model's shape (a name of `icd_lib.models.shapes`) and the tokens of one call: batch × length."""

    shape: str
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        return self.batch * self.length


CASES = {
    "bert-base 32x128": Case("bert-base-uncased", 32, 128),
    "minilm-l6 64x128": Case("minilm-l6", 64, 128),
    "minilm-l6 8x128": Case("minilm-l6", 8, 128),
}


def build_dense(shape: str, seed: int = 0) -> nn.Module:
    """The encoder of a shape with seeded random weights, on the CPU."""
    torch.manual_seed(seed)
    sizes = {key: value for key, value in SHAPES[shape].config.items() if key not in ("model_type", "architectures")}
    return BertModel(BertConfig(**sizes), add_pooling_layer=False).eval()


def ffn_axes(model: nn.Module) -> list[Axis]:
    return [axis for axis in find_adapter(model).axes() if axis.kind == "ffn"]


def kept_neurons(width: int) -> int:
    """Neurons that the mask keeps of `width`: whole tiles, nearest to the share that stays.

    >>> kept_neurons(3072), kept_neurons(1536)
    (1856, 896)
    """
    return TILE * round((1 - REMOVED) * width / TILE)


def draw_masks(axes: list[Axis], seed: int = 0) -> dict[str, np.ndarray]:
    """For every axis which neurons are alive, at random places: axis name → bool (width,)."""
    rng = np.random.default_rng(seed)
    masks = {}
    for axis in axes:
        alive = np.zeros(axis.size, dtype=bool)
        alive[rng.permutation(axis.size)[: kept_neurons(axis.size)]] = True
        masks[axis.name] = alive
    return masks


def dead_tiles(alive: np.ndarray) -> np.ndarray:
    """Which tiles hold nothing alive, bool (tiles,).

    >>> dead_tiles(np.arange(3 * TILE) < TILE + 1)
    array([False, False,  True])
    """
    return ~alive.reshape(-1, TILE).any(axis=1)


def build_arm(dense: nn.Module, arm: str) -> nn.Module:
    """A copy of the dense model as an arm other than "dense" has it."""
    model = copy.deepcopy(dense)
    axes = ffn_axes(model)
    masks = draw_masks(axes)
    for axis in axes:
        alive = masks[axis.name]
        zero_dead(model, axis, alive)
        if arm == "compacted":
            perm = pack_alive(np.arange(axis.size), alive)
            permute(model, axis, perm)
            alive = alive[perm]
        if arm in ("compacted", "tile_dropped"):
            compact(model, axis, np.repeat(~dead_tiles(alive), TILE))
    return model


@torch.no_grad()
def zero_dead(model: nn.Module, axis: Axis, alive: np.ndarray) -> None:
    """Zeros for the dead neurons, in place."""
    dead = torch.from_numpy(np.flatnonzero(~alive))
    for slot in axis.slots:
        slot_tensor(model, slot).index_fill_(slot.dim, dead, 0.0)


def facts(models: dict[str, nn.Module]) -> dict:
    """What the arms of a shape (arm → model) are: widths, what is kept, tiles, parameters of each."""
    dense = models["dense"]
    axes = ffn_axes(dense)
    masks = draw_masks(axes)
    width, kept = axes[0].size, kept_neurons(axes[0].size)
    return {
        "layers": len(axes),
        "hidden": dense.config.hidden_size,
        "ffn_width": width,
        "ffn_kept": kept,
        "ffn_removed": 1 - kept / width,
        "tile": TILE,
        "tiles": width // TILE,
        "dead_tiles_in_stored_order": [int(dead_tiles(masks[axis.name]).sum()) for axis in axes],
        "dead_tiles_once_compacted": (width - kept) // TILE,
        "parameters": {arm: count_parameters(model) for arm, model in models.items()},
    }


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def make_inputs(case: Case, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random token ids (batch, length), all of them to be read."""
    vocabulary = SHAPES[case.shape].config["vocab_size"]
    generator = torch.Generator().manual_seed(seed)
    return {"input_ids": torch.randint(0, vocabulary, (case.batch, case.length), generator=generator)}
