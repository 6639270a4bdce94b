"""What the bridge refuses before any compiler sees it: each with the name of what is wrong and the cure."""

import pytest
import torch
from torch import nn

from icd_lib.bridge.program import lines_of, record
from icd_lib.errors import ResourceError
from tests.tiny_encoders import batch, tiny_bert

IDS = {"input_ids": torch.arange(6).reshape(2, 3)}


class Tiny(nn.Module):
    """A model with one weight and a forward of one's choice."""

    def __init__(self, weight=None, forward=None):
        super().__init__()
        self.register_buffer("table", torch.ones(8, 4) if weight is None else weight)
        self.act = forward or (lambda rows: rows)

    def forward(self, input_ids, attention_mask):
        return self.act(self.table[input_ids])


def refused(model, inputs=IDS, **more):
    with pytest.raises(ResourceError) as caught:
        record(model, inputs, **{"max_module_mb": 100, **more})
    return caught.value.args[0]


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.ones(8, 4, dtype=torch.complex64), "weight table is complex64; .* two real tensors"),
        (torch.ones(8, 4, dtype=torch.int8), "weight table is int8; .* before it was quantised"),
        (torch.ones(8, 4, dtype=torch.float64), r"weight table is float64; .* model\.float\(\)"),
    ],
)
def test_numbers_that_it_does_not_take_are_named(weight, words):
    pytest.raises(ResourceError, record, Tiny(weight), IDS, max_module_mb=100).match(words)


def test_a_model_that_is_too_large_is_refused_with_both_sizes():
    assert "holds 4 MB of weights and a module may hold 1 (bridge.max_module_mb)" in refused(
        Tiny(torch.ones(1024, 1024)), max_module_mb=1
    )


def test_dynamic_shapes_that_are_asked_for_are_refused():
    words = refused(Tiny(), dynamic_shapes={"input_ids": {0: "batch"}})
    assert "Tiny was to be exported with dynamic shapes" in words and "leave dynamic_shapes out" in words


def test_a_shape_that_depends_on_the_inputs_is_named_with_its_line():
    words = refused(Tiny(forward=lambda rows: rows.nonzero()))
    assert "dynamic shape" in words and "nonzero" in words and "test_program.py:" in words


def test_control_flow_on_values_cannot_be_recorded():
    assert "Tiny cannot be recorded by torch.export" in refused(
        Tiny(forward=lambda rows: rows if rows.sum() > 0 else -rows)
    )


def test_recording_leaves_the_model_as_it_was():
    model = tiny_bert().train()
    before = {name: set(module._non_persistent_buffers_set) for name, module in model.named_modules()}
    program = record(model, batch(2, 12), max_module_mb=100)
    assert model.training and any(before.values())
    assert before == {name: set(module._non_persistent_buffers_set) for name, module in model.named_modules()}
    assert "modeling_bert.py:" in lines_of(program)["aten.linear"]


def test_the_graph_computes_what_the_model_computes():
    model, inputs = tiny_bert(), batch(2, 12, padded=True)
    program = record(model, inputs, max_module_mb=100)
    with torch.no_grad():
        assert torch.allclose(program.module()(*inputs.values()), model(**inputs).last_hidden_state, atol=1e-6)
