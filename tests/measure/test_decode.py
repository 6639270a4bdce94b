"""The clock of decoding: every arm reads the same prompts and tokens, in turns; samples and their figures."""

import numpy as np
import pytest
import torch

from icd_lib.decoding.base import Decoder
from icd_lib.decoding.bytes import cache_bytes_of, weight_bytes_of
from icd_lib.errors import MeasureError
from icd_lib.measure.decode import change_figure, measure_decoding, time_figure
from icd_lib.measure.decode_peak import decode_peak
from tests.tiny_decoders import tiny_decoder
from tests.tiny_mambas import tiny_mamba
from tests.tiny_words import tiny_words

CONTEXT, STEPS, ROUNDS, WARMUP = 4, 3, 2, 1
IDS = np.arange(2 * 12).reshape(2, 12)


class Noting(Decoder):
    """A decoder that writes down what it is asked."""

    def __init__(self, name, log):
        super().__init__()
        self.name, self.log = name, log

    def _prefill(self, prompt):
        self.log.append((self.name, "read", prompt.ids.tolist()))
        return np.zeros((len(prompt.ids), 5), np.float32)

    def _step(self, ids, positions):
        self.log.append((self.name, "step", ids.tolist()))
        return np.zeros((len(ids), 5), np.float32)

    def _forget(self):
        pass


def test_arms_read_the_same_texts_token_by_token_in_turns():
    log = []
    arms = {name: Noting(name, log) for name in "ab"}
    times = measure_decoding(arms, IDS, context=CONTEXT, steps=STEPS, rounds=ROUNDS, warmup=WARMUP)
    for name in "ab":
        assert times[name].first_ms.shape == (ROUNDS,) and times[name].step_ms.shape == (ROUNDS, STEPS)
        own = [entry[1:] for entry in log if entry[0] == name]
        one = [("read", IDS[:, :CONTEXT].tolist())]
        one += [("step", IDS[:, place].tolist()) for place in range(CONTEXT, CONTEXT + WARMUP + STEPS)]
        first = one[: 1 + WARMUP + 1]  # before the rounds that count
        assert own == first + one * ROUNDS
    assert all({log[i][0], log[i + 1][0]} == {"a", "b"} for i in range(0, len(log), 2))


@pytest.mark.parametrize("change", [{"rounds": 0}, {"steps": 0}, {"context": 0}, {"context": 9}])
def test_nothing_to_measure_is_refused(change):
    asked = {"context": CONTEXT, "steps": STEPS, "rounds": ROUNDS, "warmup": WARMUP} | change
    with pytest.raises(MeasureError):
        measure_decoding({"a": Noting("a", [])}, IDS, **asked)
    with pytest.raises(MeasureError):
        measure_decoding({}, IDS, context=CONTEXT, steps=STEPS, rounds=ROUNDS)


def test_figures_of_known_samples():
    half, whole = np.full((2, 4), 2.0), np.full((2, 4), 4.0)
    assert time_figure(half).value == 2.0 and time_figure(half).n == 8 and time_figure(half).ci95 == (2.0, 2.0)
    assert change_figure(half, whole).value == -0.5
    assert change_figure(whole, whole).ci95 == (0.0, 0.0)


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_are_those_of_the_tensors(tied):
    model = tiny_decoder(dtype=torch.float32, tie_word_embeddings=tied)
    held = sum(parameter.nbytes for parameter in model.parameters())
    table = model.get_input_embeddings().weight.nbytes
    assert weight_bytes_of(model) == (held if tied else held - table)
    assert cache_bytes_of(model, 4) == 2 * 2 * 3 * 6 * 4  # layers, keys and values, groups, dims, bytes


@pytest.mark.wide
@pytest.mark.parametrize("build", [tiny_decoder, tiny_mamba])
def test_the_peak_is_that_of_a_process_whatever_family_the_checkpoint_is_of(tmp_path, build):
    words = tiny_words()
    build(dtype=torch.float32, vocab_size=len(words)).save_pretrained(tmp_path / "m")
    words.save_pretrained(tmp_path / "m")
    found = decode_peak("eager", tmp_path / "m", batch=2, context=8, threads=1)
    assert found.kind == "measured" and found.unit == "MB" and 50 < found.value < 5000


def test_a_peak_that_cannot_be_measured_says_why(tmp_path):
    failed = decode_peak("eager", tmp_path / "none", batch=1, context=8)
    assert failed.kind == "not_measured" and "exit code 1" in failed.reason and "was not found" in failed.reason
    assert "process of its own" in decode_peak("llamacpp", tmp_path, batch=1, context=8).reason
