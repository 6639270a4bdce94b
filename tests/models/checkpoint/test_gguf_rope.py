"""Factors of rotary pairs as parameters of type llama3: whatever parameters gave them, what is found gives them too."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from icd_lib.models.checkpoint.gguf_rope import fit_llama3, llama3_factors, wavelengths


def as_stored(theta, size, *parameters):
    """As a file has them, in float32."""
    return llama3_factors(wavelengths(theta, size), *parameters).astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(("size", "factor"), [(128, 8), (64, 32)], ids=["Llama 3.1", "Llama 3.2"])
def test_the_formula_is_transformers_and_llamas_numbers_are_found(size, factor):
    factors = as_stored(5e5, size, factor, 1, 4, 8192)
    found = fit_llama3(factors, wavelengths(5e5, size), 8192)
    assert list(found.values()) == ["llama3", factor, 1, 4, 8192]
    config = LlamaConfig(head_dim=size, max_position_embeddings=131072, rope_parameters=found | {"rope_theta": 5e5})
    theirs = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))[0].double().numpy()
    assert np.allclose(5e5 ** -(np.arange(0, size, 2) / size) / theirs, factors, rtol=1e-5)


OTHERS = [(8, 1, 4, 32), (8, 1, 1.5, 8192), (4, 2, 8, 16384), (8, 1, 4, 1), (2, 1, 3, 99)]
CASES = [(*base, numbers) for base in ((1e4, 128), (5e5, 64), (1e4, 16)) for numbers in OTHERS]
CASES += [(1e4, 6, OTHERS[0]), (1e4, 6, OTHERS[3]), (1e4, 2, OTHERS[3])]


@pytest.mark.parametrize(("theta", "size", "numbers"), CASES)
def test_few_pairs_or_other_lengths_give_the_same_factors(theta, size, numbers):
    factors, waves = as_stored(theta, size, *numbers), wavelengths(theta, size)
    assert factors.max() == pytest.approx(numbers[0])
    _, *found = fit_llama3(factors, waves, 8192).values()
    assert np.allclose(llama3_factors(waves, *found), factors, rtol=1e-5)


@pytest.mark.parametrize(
    "factors",
    [np.linspace(1, 8, 32), np.full(32, 0.5), np.full(32, np.nan), np.r_[8.0, np.ones(31)]],
    ids=["a line", "faster", "no numbers", "the fast ones slowed"],
)
def test_what_no_parameters_give_is_none(factors):
    assert fit_llama3(factors, wavelengths(1e4, 64), 8192) is None
