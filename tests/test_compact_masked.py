"""icd.compact_masked: a model that was pruned elsewhere becomes smaller, reloads, and says what could not leave."""

import os

import pytest
import torch
from tiny_encoders import tiny_bert
from torch.nn.utils import prune

import icd_lib as icd
from icd_lib.errors import ConfigError
from tests.tiny_problems import assert_same_state, state_of


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


@pytest.fixture
def pruned():
    model = tiny_bert()
    prune.ln_structured(model.encoder.layer[0].intermediate.dense, "weight", 0.5, n=2, dim=0)
    prune.l1_unstructured(model.encoder.layer[1].intermediate.dense, "weight", 0.5)
    prune.l1_unstructured(model.encoder.layer[1].output.dense, "weight", 0.5)
    ids = torch.arange(24).reshape(2, 12)
    return model, {"input_ids": ids, "attention_mask": (ids != 23).long()}


def test_what_is_dead_leaves_and_the_rest_is_said(pruned, tmp_path):
    model, example = pruned
    before = state_of(model)
    compacted = icd.compact_masked(model, example, tile=8)
    size = model.config.intermediate_size
    report = compacted.report
    assert report["widths"]["ffn.0"] == size // 2 and report["widths"]["ffn.1"] == size
    assert report["max_rel_error"] < 1e-5
    assert [entry["axis"] for entry in report["zeros"]] == ["ffn.1"]
    assert report["zeros"][0]["least"] <= report["zeros"][0]["solved"] <= report["zeros"][0]["now"]
    assert_same_state(model, before)
    with torch.inference_mode():
        expected = model(**example).last_hidden_state
        torch.testing.assert_close(compacted.model(**example).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
        compacted.save_pretrained(tmp_path / "smaller")
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "smaller").iterdir()} == {0o666 & ~umask()}
        reloaded = icd.load_optimized(tmp_path / "smaller")
        torch.testing.assert_close(reloaded(**example).last_hidden_state, expected, atol=1e-5, rtol=1e-5)


def test_several_batches_may_be_given_and_the_look_left_out(pruned):
    model, example = pruned
    assert icd.compact_masked(model, iter([example, example]), tile=8, look=False).report["zeros"] == []


@pytest.mark.parametrize("tile", [0, -1, 1.5, True, "16"])
def test_a_tile_is_a_whole_number(pruned, tile):
    with pytest.raises(ConfigError, match="tile (takes|is out of range)"):
        icd.compact_masked(*pruned, tile=tile)


def test_nothing_to_try_it_on_is_an_error(pruned):
    with pytest.raises(ConfigError, match="example is empty"):
        icd.compact_masked(pruned[0], [])


def test_a_model_of_no_family_is_refused(pruned):
    with pytest.raises(ConfigError, match="supported"):
        icd.compact_masked(torch.nn.Linear(2, 2), pruned[1])
