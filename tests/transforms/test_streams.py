import torch

from icd_lib.models.families import find_adapter
from icd_lib.transforms.streams import ResidualStream
from tests.tiny_problems import encode, small_batches, small_model


def test_the_stream_ends_with_the_models_output_on_valid_tokens():
    model, batches = small_model(), small_batches()
    adapter = find_adapter(model)
    stream = ResidualStream(adapter, batches)
    for block in adapter.blocks():
        stream.advance(block, stream.sums(block, stream.inner(block)))
    for flat, batch in zip(stream.flat(stream.hidden), batches, strict=True):
        assert flat.shape == (int(batch["attention_mask"].sum()), 32)
        assert torch.allclose(flat, encode(model, batch), rtol=0, atol=1e-12)


def test_without_a_mask_every_token_is_valid():
    model, (batch,) = small_model(), small_batches(1)
    stream = ResidualStream(find_adapter(model), [{"input_ids": batch["input_ids"]}])
    assert next(iter(stream.flat(stream.hidden))).shape == (6 * 16, 32)
