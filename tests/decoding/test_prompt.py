"""Prompts: what cannot be decoded is refused by name before anything runs."""

import numpy as np
import pytest
import torch

from icd_lib.decoding.prompt import pad_left, read_prompt
from icd_lib.errors import ConfigError


def test_a_batch_without_padding_has_no_mask():
    ids = torch.arange(6).reshape(2, 3)
    for mask in (None, torch.ones(2, 3)):
        prompt = read_prompt(ids, mask)
        assert prompt.mask is None and prompt.lengths.tolist() == [3, 3]
        assert np.array_equal(prompt.ids, ids.numpy()) and prompt.positions.tolist() == [[0, 1, 2]] * 2


def test_positions_begin_at_the_first_token_of_each_text():
    prompt = read_prompt(*pad_left([[5, 6, 7], [8], [9, 4]]))
    assert prompt.lengths.tolist() == [3, 1, 2]
    assert prompt.positions.tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 1]]


def test_one_prompt_is_a_batch_of_one():
    assert read_prompt([4, 5, 6]).ids.tolist() == [[4, 5, 6]]


@pytest.mark.parametrize("ids", [[], [[]], [[], []], np.zeros((2, 0), int)], ids=str)
def test_an_empty_prompt_is_refused(ids):
    with pytest.raises(ConfigError, match="empty"):
        read_prompt(ids)


def test_unequal_prompts_without_a_mask_are_refused():
    with pytest.raises(ConfigError, match="2 to 3 tokens and no mask.*pad_left"):
        read_prompt([[1, 2, 3], [1, 2]])


def test_a_prompt_longer_than_the_positions_is_refused_and_padding_does_not_count():
    with pytest.raises(ConfigError, match="5 tokens and the model 4 positions"):
        read_prompt([[1, 2, 3, 4, 5]], None, 4)
    assert read_prompt([[0, 1, 2, 3, 4]], [[0, 1, 1, 1, 1]], 4).lengths.tolist() == [4]


@pytest.mark.parametrize(
    "mask, words",
    [
        ([[1, 1, 1], [1, 1, 0]], "prompt 1 is padded on the right"),
        ([[1, 0, 1], [1, 1, 1]], "prompt 0 is padded on the right or inside"),
        ([[1, 1, 1], [0, 0, 0]], "prompt 1 is empty"),
        ([[1, 1, 1]], "in the shape of the prompts"),
        ([[1, 1, 1], [1, 1, 2]], "holds 0 and 1"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, words):
    with pytest.raises(ConfigError, match=words):
        read_prompt([[1, 2, 3], [4, 5, 6]], mask)
