"""A BERT on a CUDA device: what the CPU computes, and what permuting and compacting there must not change."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from icd_lib.axes.axis import slot_tensor
from icd_lib.axes.compact import compact
from icd_lib.axes.permutation import pack_alive
from icd_lib.axes.permute import permute
from icd_lib.models.families import find_adapter

pytestmark = pytest.mark.gpu

WIDTH, HEADS = 96, 4
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2}


def make_model() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=64, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=WIDTH
    )
    return BertModel(config).eval()


IDS = torch.randint(0, 99, (2, 16), generator=torch.Generator().manual_seed(1))


def output_of(model: BertModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS.to(model.device)).last_hidden_state


def axes_of(model: BertModel, kind: str) -> list:
    return [axis for axis in find_adapter(model).axes() if axis.kind == kind]


def alive_in(axis, kept: int) -> np.ndarray:
    alive = np.zeros(axis.size, dtype=bool)
    alive[np.random.default_rng(len(axis.name)).permutation(axis.size)[:kept]] = True
    return alive


@torch.no_grad()
def zero_dead(model: BertModel, axis, alive: np.ndarray) -> None:
    """Zeros where a slot writes or reads dead elements; a head is a block of rows or columns."""
    for slot in axis.slots:
        places = np.repeat(~alive, slot.block).nonzero()[0]
        tensor = slot_tensor(model, slot)
        tensor.index_fill_(slot.dim, torch.from_numpy(places).to(tensor.device), 0.0)


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def test_a_bert_on_the_device_gives_the_outputs_of_the_cpu():
    model = make_model().double()
    expected = output_of(model)
    assert relative_error(output_of(model.cuda()).cpu(), expected) <= 1e-9


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_permuted_bert_is_the_same_function_on_the_device(dtype):
    model = make_model().to("cuda", dtype)
    before = output_of(model)
    for axis in axes_of(model, "ffn") + axes_of(model, "heads"):
        permute(model, axis, np.roll(np.arange(axis.size), 1))
    assert next(model.parameters()).is_cuda
    assert relative_error(output_of(model), before) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_compacted_bert_is_the_zeroed_one_on_the_device(dtype):
    """Neurons and heads are zeroed in place, brought together, and the dead ones taken out."""
    model = make_model().to("cuda", dtype)
    dense = output_of(model)
    alive = {axis.name: alive_in(axis, 40) for axis in axes_of(model, "ffn")}
    alive |= {axis.name: alive_in(axis, 3) for axis in axes_of(model, "heads")}
    axes = axes_of(model, "ffn") + axes_of(model, "heads")
    for axis in axes:
        zero_dead(model, axis, alive[axis.name])
    zeroed = output_of(model)
    assert relative_error(zeroed, dense) > 10 * TOLERANCE[dtype] or dtype == torch.bfloat16
    for axis in axes:
        perm = pack_alive(np.arange(axis.size), alive[axis.name])
        permute(model, axis, perm)
        compact(model, axis, alive[axis.name][perm])
    layer = model.encoder.layer[1]
    assert layer.intermediate.dense.weight.shape == (40, 64) and layer.attention.self.num_attention_heads == 3
    assert all(parameter.is_cuda and parameter.dtype == dtype for parameter in model.parameters())
    assert relative_error(output_of(model), zeroed) <= TOLERANCE[dtype]
