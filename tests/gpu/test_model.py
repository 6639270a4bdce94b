"""Checks that need a CUDA device (`make gpu-check`)."""

import pytest
import torch
from transformers import BertConfig, BertModel


@pytest.mark.gpu
def test_a_bert_on_the_device_gives_the_outputs_of_the_cpu():
    torch.manual_seed(0)
    config = BertConfig(vocab_size=99, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    model = BertModel(config).eval().double()
    ids = torch.randint(0, 99, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(ids).last_hidden_state
        got = model.cuda()(ids.cuda()).last_hidden_state.cpu()
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9)
