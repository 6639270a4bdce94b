import pytest
import torch
import transformers
from torch import nn

from icd_lib.axes.verify import verify_axes
from icd_lib.errors import ConfigError
from icd_lib.models.families import find_adapter
from tests.tiny_problems import CLASSES, HEADS, HIDDEN, LAYERS, VOCAB, encode, small_batches, small_model


def run_blocks(model, inputs):
    adapter = find_adapter(model)
    with torch.inference_mode():
        hidden, context = adapter.embed(inputs)
        for block in adapter.blocks():
            hidden = block.forward(hidden, context)
    return hidden[inputs["attention_mask"].bool()]


def test_token_types_and_positions_reach_the_embeddings():
    model, (inputs,) = small_model(), small_batches(1)
    rows, length = inputs["input_ids"].shape
    types = inputs | {"token_type_ids": torch.ones(rows, length, dtype=torch.long)}
    shifted = inputs | {"position_ids": torch.arange(length)[None] + 3}
    plain = encode(model, inputs)
    for changed in (types, shifted):
        assert torch.allclose(run_blocks(model, changed), encode(model, changed), rtol=0, atol=1e-12)
        assert not torch.allclose(encode(model, changed), plain, atol=1e-3)


@pytest.mark.parametrize("kind", CLASSES)
def test_axes_by_name_and_size(kind):
    sizes = {axis.name: axis.size for axis in find_adapter(small_model(kind)).axes()}
    assert len(sizes) == LAYERS * (2 + 2 * HEADS) + 2
    assert (sizes["residual"], sizes["vocab"], sizes["heads.1"], sizes["qk.1.3"]) == (HIDDEN, VOCAB, HEADS, 8)
    assert sizes["ffn.0"] == 48


def test_blocks_run_heads_then_ffn_of_each_layer():
    blocks = list(find_adapter(small_model("token")).blocks())
    assert [b.axis for b in blocks] == ["heads.0", "ffn.0", "heads.1", "ffn.1"]
    assert [(b.elements, b.unit) for b in blocks] == [(4, 8), (48, 1)] * 2
    assert [b.layer for b in blocks] == [0, 0, 1, 1]


def test_trunk_holds_the_blocks_and_nothing_else():
    model = small_model("sequence")
    assert find_adapter(model).trunk() is model.bert.encoder


FAMILY = dict(
    vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, pad_token_id=1
)
RELATIVES = {
    "RobertaModel": {},
    "RobertaForSequenceClassification": {},
    "RobertaForTokenClassification": {},
    "RobertaForMaskedLM": {},
    "ElectraModel": {"embedding_size": 16},
    "ElectraForSequenceClassification": {"embedding_size": 16},
    "ElectraForPreTraining": {"embedding_size": 32},
    "ElectraForMaskedLM": {"embedding_size": 16},
    "ElectraForMaskedLM equal widths": {"embedding_size": 32},
    "RobertaForMaskedLM untied": {"tie_word_embeddings": False},
}


@pytest.mark.parametrize(("name", "changes"), RELATIVES.items())
def test_relatives_of_bert_have_every_axis_verified(name, changes):
    cls = getattr(transformers, name.split()[0])
    torch.manual_seed(0)
    model = cls(cls.config_class(**FAMILY | changes)).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    inputs = {"input_ids": torch.randint(2, 61, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    certificates = verify_axes(model, find_adapter(model).axes(), inputs)
    assert {entry["kind"] for entry in certificates} == {"ffn", "heads", "qk", "v", "residual", "vocab"}
    (encoder,) = (module for module in model.modules() if hasattr(module, "embeddings") and hasattr(module, "encoder"))
    with torch.inference_mode():
        assert torch.allclose(run_blocks(model, inputs), encoder(**inputs).last_hidden_state.flatten(0, 1), atol=1e-6)


def test_a_foreign_architecture_is_refused_by_name():
    with pytest.raises(ConfigError, match="no adapter knows the architecture Sequential.*BERT family"):
        find_adapter(nn.Sequential(nn.Linear(3, 3)))
