"""The replay of every family is the model; anything between two blocks, and any other attention, is found."""

import copy

import pytest
import torch
from torch import nn

from icd_lib.errors import AxisError, TransformError
from icd_lib.models.families import FAMILIES, find_adapter
from icd_lib.models.replay import check_replay, compared_rows
from tests.extend import toy_family
from tests.inputs.encoders import batches, encoder
from tests.tiny_families import CASES, FACTORIES
from tests.tiny_problems import assert_same_state, state_of


class Held(nn.Module):
    """A module of nobody's family around an encoder: it is read by its structure alone."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, **inputs):
        return self.inner(**inputs)


@pytest.fixture(autouse=True)
def toys(monkeypatch):
    monkeypatch.setitem(FAMILIES._rows, "toy", toy_family.FAMILY)


@pytest.fixture(params=CASES, ids=" ".join)
def case(request):
    family, kind = request.param
    model, inputs = FACTORIES[family][kind]()
    return copy.deepcopy(model), inputs


def test_every_family_is_what_its_replay_says_and_stays_as_it_was(case):
    model, inputs = case
    state = state_of(model)
    check_replay(model, [inputs])
    check_replay(model, [{name: value for name, value in inputs.items() if name != "attention_mask"}])
    check_replay(copy.deepcopy(model).float(), [inputs])
    assert_same_state(model, state)
    assert not any(module._forward_hooks for module in model.modules())


def test_what_happens_between_two_blocks_is_found_at_the_next(case):
    model, inputs = case
    adapter = find_adapter(model)
    blocks, trunk = list(adapter.blocks()), adapter.trunk()
    layers = trunk if isinstance(trunk, nn.ModuleList) else trunk.layer
    layers[0].register_forward_hook(lambda module, args, out: 1.001 * (out[0] if isinstance(out, tuple) else out))
    first = next(block.axis for block in blocks if block.layer == 1)
    # A model that norms what goes into a block shows it at once, one that norms what comes out one norm later.
    with pytest.raises(AxisError, match=rf"block '({first}|\w+\.1)' of .* differs by"):
        check_replay(model, [inputs])


def test_what_comes_after_the_last_block_is_found(case):
    model, inputs = case
    trunk = find_adapter(model).trunk()
    layers = trunk if isinstance(trunk, nn.ModuleList) else trunk.layer
    layers[-1].register_forward_hook(lambda module, args, out: 1.001 * (out[0] if isinstance(out, tuple) else out))
    with pytest.raises(AxisError, match="the hidden state after the last block differs by"):
        check_replay(model, [inputs])


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("RoFormerModel", "block 'heads.0' of Held, run alone, is not .*: what its last Linear reads differs"),
        ("XmodModel", "block 'ffn.0' of Held"),
        ("MobileBertModel", "Held is not built like .*: block 'heads.0' cannot be run alone"),
        ("IBertModel", "its embeddings cannot be run alone"),
        ("LayoutLMModel", "its embeddings cannot be run alone"),
    ],
)
def test_what_only_looks_like_bert_is_named_with_the_block(name, where):
    with pytest.raises(AxisError, match=where):
        check_replay(Held(encoder(name)), batches())


def test_a_causal_mask_counts_on_padded_rows_too():
    model = encoder("BertModel", torch.float64, is_decoder=True)
    check_replay(model, batches())
    encoder_like = encoder("BertModel", torch.float64, is_decoder=True)
    encoder_like.config = type(model.config).from_dict(model.config.to_dict() | {"is_decoder": False})
    with pytest.raises(AxisError, match="block 'heads.0'"):  # its layers are causal, its mask is not
        check_replay(encoder_like, [{"input_ids": batches()[0]["input_ids"]}, *batches()])


def test_layers_run_in_pieces_are_put_together():
    check_replay(encoder("BertModel", torch.float64, chunk_size_feed_forward=3), batches())


def test_float_inputs_are_compared_in_double():
    model = Held(encoder("BertModel", torch.float64))
    check_replay(model, [batch | {"token_type_ids": torch.zeros_like(batch["input_ids"])} for batch in batches()])
    float_mask = [batch | {"attention_mask": batch["attention_mask"].float()} for batch in batches()]
    check_replay(model, float_mask)


def test_a_model_that_does_not_run_is_told_from_one_that_is_not_ours():
    inputs = {"input_ids": torch.full((1, 4), 70)}  # ids behind the last row
    with pytest.raises(TransformError, match=r"BertModel does not run on the inputs \['input_ids'\] \(IndexError"):
        check_replay(encoder("BertModel"), [inputs])


def test_weights_that_are_not_finite_are_named():
    model = encoder("BertModel")
    model.encoder.layer[1].intermediate.dense.weight[0, 0] = torch.inf
    with pytest.raises(AxisError, match="BertModel is not finite at block 'ffn.1'"):
        check_replay(model, batches())


def test_the_longest_batch_and_a_padded_row_are_compared_whatever_the_inputs_are():
    short, long = torch.ones(3, 4, dtype=torch.long), torch.ones(5, 9, dtype=torch.long)
    padded = short.clone()
    padded[2, 3] = 0
    given = [
        {"input_ids": short, "attention_mask": short},
        {"input_ids": long, "attention_mask": long, "position_ids": torch.arange(9)[None]},
        {"input_ids": short, "attention_mask": padded},
    ]
    rows = list(compared_rows(given))
    assert [tuple(batch["input_ids"].shape) for batch in rows] == [(2, 9), (2, 4), (2, 4)]
    assert rows[0]["position_ids"].shape == (1, 9)
    assert sorted(int(batch["attention_mask"].min()) for batch in rows) == [0, 1, 1]
