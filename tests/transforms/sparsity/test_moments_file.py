"""Moments come back from disk bit for bit; what is not there or damaged is computed, and kept for the next time."""

import pytest
import torch

from icd_lib.models.families import find_adapter
from icd_lib.storage.tensor_file import load_tensors, save_tensors
from icd_lib.transforms.sparsity.moments_file import kept_moments
from icd_lib.transforms.sparsity.obs import Moments
from icd_lib.transforms.sparsity.prune import consumer_moments
from tests.tiny_mambas import tiny_mamba, tokens
from tests.tiny_problems import small_batches, small_model


def moments_of(kind):
    if kind == "bert":
        return consumer_moments(find_adapter(small_model(dtype=torch.float32)), small_batches())
    batch = {"input_ids": tokens(2, 12, 0), "use_cache": False}
    return consumer_moments(find_adapter(tiny_mamba(dtype=torch.float32, hidden_size=24)), [batch])


class Computed:
    """Moments that are computed when called, and counted."""

    def __init__(self, moments):
        self.moments, self.calls = moments, 0

    def __call__(self):
        self.calls += 1
        return self.moments


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for axis, moments in wanted.items():
        again = found[axis]
        for name in ("gram", "cross", "target_sum"):
            one, other = getattr(again, name), getattr(moments, name)
            assert one.dtype == other.dtype == torch.float64 and torch.equal(one, other), (axis, name)
        assert (again.target_square, again.tokens, again.bias) == (moments.target_square, moments.tokens, moments.bias)
        assert type(again.tokens) is int and type(again.bias) is bool


@pytest.mark.parametrize("kind", ["bert", "mamba"])
def test_moments_come_back_bit_for_bit(tmp_path, kind):
    compute, path = Computed(moments_of(kind)), tmp_path / "deep" / "moments.safetensors"
    assert kept_moments(path, compute) is compute.moments
    assert_same(kept_moments(path, compute), compute.moments)
    assert compute.calls == 1


def test_numbers_that_decimals_would_round_survive(tmp_path):
    moments = Moments(
        torch.eye(3).double() / 3, torch.zeros(2, 3).double(), torch.zeros(2).double(), 0.1 + 0.2, 7, False
    )
    compute = Computed({"ffn.0": moments})
    for _ in range(2):
        found = kept_moments(tmp_path / "m.safetensors", compute)
    assert compute.calls == 1 and found["ffn.0"].target_square == 0.1 + 0.2 and found["ffn.0"].bias is False
    found["ffn.0"].gram += 1  # what was read can be worked with
    assert found["ffn.0"].gram.sum() == pytest.approx(10)


def cut(path):
    path.write_bytes(path.read_bytes()[:-8])


def lose_an_array(path):
    arrays, meta = load_tensors(path)
    save_tensors({name: array for name, array in arrays.items() if name != "ffn.0/cross"}, path, meta)


def lose_the_words(path):
    save_tensors(load_tensors(path)[0], path, {})


def garble_the_words(path):
    arrays, meta = load_tensors(path)
    save_tensors(arrays, path, meta | {"ffn.0": "one 2 3"})


def shorten_the_words(path):
    arrays, meta = load_tensors(path)
    save_tensors(arrays, path, meta | {"ffn.0": "0x1p+0 3"})


@pytest.mark.parametrize(
    "damage",
    [cut, lose_an_array, lose_the_words, garble_the_words, shorten_the_words, lambda path: path.write_text("")],
)
def test_a_damaged_file_is_computed_anew_and_replaced(tmp_path, damage):
    compute, path = Computed(moments_of("bert")), tmp_path / "moments.safetensors"
    kept_moments(path, compute)
    damage(path)
    assert_same(kept_moments(path, compute), compute.moments)
    assert compute.calls == 2
    assert_same(kept_moments(path, compute), compute.moments)
    assert compute.calls == 2


def test_a_file_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    compute = Computed(moments_of("bert"))
    path = tmp_path / "folder"
    path.mkdir()  # where the file should be
    (path / "something").write_text("")
    for calls in (1, 2):
        assert kept_moments(path, compute) is compute.moments and compute.calls == calls
    assert not list(tmp_path.glob("*.partial"))


def test_an_error_while_computing_is_not_hidden_and_keeps_nothing(tmp_path):
    def fail():
        raise ValueError("no batch")

    with pytest.raises(ValueError, match="no batch"):
        kept_moments(tmp_path / "m.safetensors", fail)
    assert not list(tmp_path.iterdir())
