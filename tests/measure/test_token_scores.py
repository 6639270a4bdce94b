"""A few rows at a time give, bit for bit, what all of them at once give."""

import numpy as np
import pytest
import torch

from icd_lib.errors import MeasureError
from icd_lib.measure import token_scores
from icd_lib.measure.token_scores import against, divergence, few_rows, log_probabilities, right_tokens

SHAPE = (3, 7, 1013)


@pytest.fixture(scope="module")
def drawn():
    """Logits of two models, the first of them not contiguous, and right tokens."""
    draw = torch.Generator().manual_seed(0)
    one = 5 * torch.randn(SHAPE[0], SHAPE[1] + 1, SHAPE[2], generator=draw)[:, :-1]
    return one, one + 0.1 * torch.randn(SHAPE, generator=draw), torch.randint(SHAPE[2], SHAPE[:2], generator=draw)


@pytest.fixture(params=[1, 2000, 5000])
def few(request, monkeypatch):
    """So many numbers at once: one row, less than a text's rows with a rest, and most of them."""
    monkeypatch.setattr(token_scores, "AT_ONCE", request.param)


def test_every_row_comes_once_and_in_order(drawn, few):
    pieces = list(few_rows(*drawn))
    assert len(pieces) > SHAPE[0]
    for number, tensor in enumerate(drawn):
        assert torch.equal(torch.cat([piece[number] for piece in pieces]), tensor.flatten(0, 1))


def test_figures_of_rows_are_those_of_all_at_once(drawn, few):
    dense, given, targets = drawn
    right = given.gather(-1, targets[..., None])[..., 0]
    log_probs, correct = right_tokens(given, targets)
    assert np.array_equal(log_probs, (right - given.logsumexp(-1)).numpy())
    assert np.array_equal(correct, (given.argmax(-1) == targets).numpy())
    log_p, log_q = (logits.log_softmax(-1, dtype=torch.float64) for logits in (dense, given))
    assert torch.equal(log_probabilities(dense), log_p)
    expected = (log_p.exp() * (log_p - log_q)).sum(-1)
    exact = against(log_p, given, targets)
    assert np.array_equal(exact[0], log_q.gather(-1, targets[..., None])[..., 0].float().numpy())
    assert np.array_equal(exact[1], correct) and np.array_equal(exact[2], expected.float().numpy())
    np.testing.assert_allclose(divergence(dense, given), expected, rtol=2e-4)


def test_a_divergence_does_not_depend_on_how_many_rows_are_taken(drawn, monkeypatch):
    whole = divergence(*drawn[:2])
    monkeypatch.setattr(token_scores, "AT_ONCE", 1)
    assert np.array_equal(divergence(*drawn[:2]), whole)


def test_other_vocabularies_are_refused(drawn):
    with pytest.raises(MeasureError, match="1012 and 1013 logits"):
        divergence(drawn[0], drawn[1][..., 1:])
