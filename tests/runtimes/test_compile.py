"""torch.compile: what it needs, and that a shape too many is refused instead of run in eager."""

import pytest
import torch
from torch import nn

from icd_lib.errors import ResourceError
from icd_lib.runtimes import compile as rows
from icd_lib.runtimes.compile import APART, RUNTIME
from tests.tiny_encoders import batch, tiny_bert

pytestmark = pytest.mark.wide


class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.embeddings = nn.Embedding(97, width)

    def forward(self, input_ids, attention_mask):
        return self.embeddings(input_ids) * attention_mask[..., None]


def test_without_a_compiler_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ResourceError, match=r"C\+\+ compiler"):
        RUNTIME.prepare(tiny_bert(), batch(1, 5))


def test_past_the_limit_of_graphs_a_shape_is_refused():
    RUNTIME.reset()
    with torch._dynamo.config.patch(recompile_limit=1):
        try:
            prepared = RUNTIME.prepare(Small(), batch(1, 5))
        except ResourceError as error:
            pytest.skip(error.args[0])
        prepared.warm(batch(1, 5))
        with pytest.raises(ResourceError, match=r"torch\.compile failed here \(FailOnRecompileLimitHit\)"):
            prepared.warm(batch(2, 3))
    RUNTIME.reset()


@pytest.mark.skipif(not APART, reason="this torch counts the graphs of all models of one class together")
def test_models_of_many_widths_are_compiled_side_by_side():
    RUNTIME.reset()
    with torch._dynamo.config.patch(recompile_limit=2):
        try:
            prepared = {width: RUNTIME.prepare(Small(width), batch(1, 5)) for width in (2, 3, 5, 7)}
        except ResourceError as error:
            assert "C++ compiler" in error.args[0]
            pytest.skip(error.args[0])
        for width, model in prepared.items():
            assert model.run(batch(1, 5)).shape == (1, 5, width)
    RUNTIME.reset()


@pytest.mark.parametrize("most", [2, 4])
def test_where_models_of_one_class_are_counted_together_the_limit_is_ours(most, monkeypatch):
    monkeypatch.setattr(rows, "APART", {})
    monkeypatch.setattr(rows, "MOST_GRAPHS", most)
    RUNTIME.reset()
    made = []
    try:
        for width in (2, 3, 5, 7):
            made.append(RUNTIME.prepare(Small(width), batch(1, 5)))
    except ResourceError as error:
        if "C++ compiler" in error.args[0]:
            pytest.skip(error.args[0])
        assert "FailOnRecompileLimitHit" in error.args[0]
    finally:
        RUNTIME.reset()
    assert len(made) == most
