"""An embedding is the mean of a text's own tokens, whatever it shares a batch with."""

import copy
import math

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from icd_lib.data.batches import encode
from icd_lib.errors import MeasureError
from icd_lib.measure.embed import embed, mean_pool
from tests.tiny_domains import toy_domain, toy_encoder, toy_tokenizer


@pytest.fixture(scope="module")
def dense():
    return toy_encoder()


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Token ids of texts of 4 to 13 tokens, neither in order of length nor all different in it."""
    texts = [" ".join(text.split()[: 2 + place % 10]) for place, text in enumerate(toy_domain(documents=30).texts)]
    return encode(toy_tokenizer(tmp_path_factory.mktemp("tokenizer")), texts)


def test_the_mean_is_over_what_is_not_padding_and_of_unit_length():
    hidden = torch.tensor([[[2.0, 0.0], [4.0, 8.0], [9.0, 9.0]], [[0.0, 3.0], [7.0, 7.0], [7.0, 7.0]]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert torch.allclose(mean_pool(hidden, mask), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_each_text_has_the_embedding_that_it_has_alone_at_its_own_place(dense, sequences):
    found, logits = embed(dense, sequences)
    assert found.shape == (90, 32) and found.dtype == np.float32 and logits is None
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for place in (0, 7, 41, 89):
        with torch.no_grad():
            hidden = dense(input_ids=torch.tensor([sequences[place]])).last_hidden_state[0]
        alone = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        np.testing.assert_allclose(found[place], alone.numpy(), atol=1e-6)


def test_a_head_gives_logits_beside_the_same_embeddings(sequences):
    model = toy_encoder(BertForSequenceClassification, num_labels=4)
    found, logits = embed(model, sequences, own_head=True)
    plain, none = embed(model, sequences)
    assert none is None and np.array_equal(found, plain)
    assert logits.shape == (90, 4) and logits.dtype == np.float32
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([sequences[33]])).logits[0]
    np.testing.assert_allclose(logits[33], alone.numpy(), atol=1e-5)


def test_half_precision_outputs_become_float32(sequences):
    half, _ = embed(toy_encoder().to(torch.bfloat16), sequences)
    whole, _ = embed(toy_encoder(), sequences)
    assert half.dtype == np.float32 and 0.99 < (half * whole).sum(1).mean() < 1 - 1e-7


def test_progress_counts_tokens_to_the_total(dense, sequences):
    calls, total = [], 20 * sum(map(len, sequences))
    embed(dense, 20 * sequences, progress=lambda done, all_: calls.append((done, all_)))
    done = [count for count, _ in calls]
    assert len(done) > 2 and done == sorted(set(done)) and calls[-1] == (total, total)


def test_what_cannot_be_embedded_is_refused(dense, sequences):
    broken = copy.deepcopy(dense)
    broken.embeddings.word_embeddings.weight[sequences[5][1]] = math.nan
    with pytest.raises(MeasureError, match=r"embedding of text \d+ is not finite") as caught:
        embed(broken, sequences)
    named = int(str(caught.value).split("text ")[1].split()[0])
    assert sequences[5][1] in sequences[named], "the text that is named has the broken word"
    with pytest.raises(MeasureError, match="no text to embed"):
        embed(dense, [])
