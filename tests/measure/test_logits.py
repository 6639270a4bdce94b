"""Logits of blocks: what the dense model's head reads is kept, and the head alone gives the same logits."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from icd_lib.data.language import Blocks, spread_rows
from icd_lib.measure import logits
from icd_lib.measure.logits import DenseLogits, predictions
from icd_lib.measure.quality_lm import KL_BLOCKS, first_scored, judge_blocks

FIRST = 2


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def blocks():
    ids = np.random.default_rng(1).integers(0, 50, (5, 12))
    return Blocks(ids, np.zeros_like(ids))


def whole(model, blocks):
    return torch.cat([logits for _, logits, _ in predictions(model, blocks, FIRST)])


@torch.inference_mode()
def test_kept_states_give_the_logits_of_any_rows(model, blocks, tmp_path):
    expected, rows = whole(model, blocks), [3, 0]
    kept = DenseLogits(model, lambda name: tmp_path / f"{name}.safetensors")
    torch.testing.assert_close(kept.of(blocks, rows, FIRST), expected[rows])
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]

    class Headless:
        """Only the head may run: the states come from the file."""

        get_output_embeddings = model.get_output_embeddings

    again = DenseLogits(Headless(), lambda name: tmp_path / f"{name}.safetensors")
    assert torch.equal(again.of(blocks, rows, FIRST), kept.of(blocks, rows, FIRST))


@pytest.mark.parametrize("size", [60, 4096])
@torch.inference_mode()
def test_dense_is_read_while_it_is_judged_and_not_run_again(model, tmp_path, monkeypatch, size):
    monkeypatch.setattr(logits, "TOKENS_PER_BATCH", size)  # batches with all, some and none of the rows that KL is of
    ids = np.random.default_rng(2).integers(0, 50, (48, 12))
    blocks = Blocks(ids, np.zeros_like(ids))
    first, reference = first_scored(blocks), blocks.take(spread_rows(48, KL_BLOCKS))
    expected = torch.cat([found for _, found, _ in predictions(model, reference, first)])
    dense = DenseLogits(model, lambda name: tmp_path / f"{name}.safetensors")
    judge_blocks(model, blocks, dense)

    def run(*given, **named):
        raise AssertionError("the whole model runs again")

    monkeypatch.setattr(model, "forward", run)
    for one in (dense, DenseLogits(model, lambda name: tmp_path / f"{name}.safetensors")):
        torch.testing.assert_close(one.of(reference, [30, 0, 7], first), expected[[30, 0, 7]])


@torch.inference_mode()
def test_a_damaged_file_is_computed_anew(model, blocks, tmp_path):
    path = tmp_path / "states.safetensors"
    path.write_bytes(b"cut")
    kept = DenseLogits(model, lambda name: path)
    torch.testing.assert_close(kept.of(blocks, [1], FIRST), whole(model, blocks)[[1]])
    assert path.stat().st_size > 100


@torch.inference_mode()
def test_logits_that_the_head_alone_does_not_give_run_the_whole_model(model, blocks):
    class Capped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.config = model, model.config

        def get_output_embeddings(self):
            return self.inner.get_output_embeddings()

        def forward(self, **inputs):
            found = self.inner(**inputs)
            found.logits = torch.tanh(found.logits) * 3
            return found

    capped = Capped().eval()
    judge_blocks(capped, blocks, dense := DenseLogits(capped))
    assert dense.of(blocks, [0], first_scored(blocks)).abs().max() <= 3, "not what the head gives"
    assert torch.equal(DenseLogits(capped).of(blocks, [4, 2], FIRST), whole(capped, blocks)[[4, 2]])
    assert not model.get_output_embeddings()._forward_pre_hooks
