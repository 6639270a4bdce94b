"""Generating on a CUDA device: the tokens and logits that the CPU gives, within what rounding allows."""

from contextlib import closing

import numpy as np
import pytest
import torch

from icd_lib.decoding import DECODERS, row_at
from icd_lib.models.checkpoint.loading import open_model
from tests.tiny_decoders import tiny_decoder

pytestmark = pytest.mark.gpu

STEPS = 16


@pytest.fixture(scope="module", params=["mamba", "llama"])
def model(request):
    return open_model("mamba-worlds")[0] if request.param == "mamba" else tiny_decoder(dtype=torch.float32)


def said(decoder, ids, given=None) -> np.ndarray:
    """Logits (B, STEPS, V) after the prompts and after each token, its own or the given ones."""
    found = [decoder.prefill(ids)]
    for step in range(STEPS - 1):
        found.append(decoder.step(found[-1].argmax(-1) if given is None else given[:, step]))
    return np.stack(found, axis=1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_device_says_what_the_cpu_says(model, precision):
    ids = np.random.default_rng(0).integers(5, 60, (2, 24))
    row = row_at("cuda:0", precision)
    with closing(DECODERS["eager"].prepare(model)) as here, closing(row.prepare(model)) as there:
        wanted = said(here, ids)
        found = said(there, ids, wanted.argmax(-1))
        assert np.abs(found - wanted).max() <= row.tolerance * np.abs(wanted).max()
        if precision == "fp32":
            assert np.array_equal(found.argmax(-1), wanted.argmax(-1))
        assert there.weight_bytes == here.weight_bytes // (1 if precision == "fp32" else 2)
