"""A prepared model called like a model."""

import torch

from icd_lib.runtimes.eager import RUNTIME
from icd_lib.runtimes.encoder import RuntimeEncoder
from tests.tiny_encoders import batch, tiny_bert


def test_a_prepared_model_answers_like_the_model():
    model, inputs = tiny_bert(), batch(2, 6)
    answer = RuntimeEncoder(RUNTIME.prepare(model, inputs))(**inputs).last_hidden_state
    with torch.no_grad():
        assert torch.equal(answer, model(**inputs).last_hidden_state)
    answer[:] = 0  # a tensor of the caller's own
