"""benchmarks/llamacpp.py: its judge on a tiny file, its tables, and that docs/DECODER.md holds what was measured."""

import sys
from argparse import ArgumentTypeError
from pathlib import Path

import numpy as np
import pytest
import torch

from icd_lib.data.language import Blocks
from icd_lib.decoding import DECODERS
from icd_lib.deploy.gguf import write_gguf
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.measure.quality_lm import LanguageSuite
from icd_lib.storage.json_text import read_text
from tests.tiny_decoders import VOCAB, tiny_decoder

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import llamacpp

LENGTH = 24


@pytest.fixture
def model():
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    return tiny_decoder(dtype=torch.float32, spread=0.1, head_dim=16, **sizes)


@pytest.fixture
def suite(model):
    ids = np.random.default_rng(0).integers(3, VOCAB, (6, LENGTH))
    return LanguageSuite({"unseen": {"made up": Blocks(ids, np.repeat(np.arange(6)[:, None], LENGTH, 1))}}, model)


def written(model, folder, kind) -> Path:
    try:
        DECODERS["llamacpp"].check()
    except ResourceError as error:
        pytest.skip(error.args[0])
    return write_gguf(model, None, folder / f"{kind}.gguf", kind=kind).path


def test_a_file_of_floats_loses_nothing_and_fewer_bits_lose_more(model, suite, tmp_path):
    dense = suite.evaluate(model)
    kinds = ("f32", "q8_0", "q4_0")
    found = {
        kind: llamacpp.judge(written(model, tmp_path, kind), suite, dense, model, 1, length=LENGTH) for kind in kinds
    }
    floats, eight, four = (found[kind]["kl"]["value"] for kind in kinds)
    assert 0 <= floats < 1e-4 and floats < eight < four
    assert found["f32"]["accuracy_drop_pp"]["drop_pp"] == 0 and found["f32"]["n_items"] == 6 * (LENGTH - 1)
    assert found["f32"]["bytes"] > found["q8_0"]["bytes"] > found["q4_0"]["bytes"]
    result = {"quality": found, "text": {"tokens": 144, "domains": ["made up"]}}
    assert llamacpp.table(result).count("| q4_0 |") == 1


def test_more_texts_than_it_was_opened_for_are_refused(model, tmp_path):
    file = written(model, tmp_path, "f32")
    decoder = llamacpp.opened(file, 1, 2, LENGTH)
    whole = decoder.whole(np.arange(3, 3 + 2 * LENGTH).reshape(2, LENGTH))
    assert np.allclose(decoder.prefill(np.arange(3, 3 + 2 * LENGTH).reshape(2, LENGTH)), whole[:, -1], atol=1e-3)
    with pytest.raises(ConfigError, match="was opened for 2 texts, not 3"):
        decoder.whole(np.full((3, 4), 5))
    decoder.close()


def test_llama_cpp_rounds_a_file_of_floats_itself_and_names_the_kinds_that_it_knows(model, suite, tmp_path):
    floats = written(model, tmp_path, "f32")
    made = llamacpp.quantize_gguf(floats, tmp_path / "made.gguf", "Q4_K_M")
    judged = llamacpp.judge(made, suite, suite.evaluate(model), model, 1, length=LENGTH)
    assert judged["kl"]["value"] > 1e-4 and made.stat().st_size < floats.stat().st_size
    with pytest.raises(ResourceError, match=r"Q3_X is unknown to llama.cpp .*; it takes .*Q4_K_M"):
        llamacpp.quantize_gguf(floats, tmp_path / "other.gguf", "Q3_X")


def test_files_are_named():
    assert llamacpp.named_file("mine=a/b=c.gguf") == ("mine", Path("a/b=c.gguf"))
    with pytest.raises(ArgumentTypeError, match="NAME=PATH, got 'a.gguf'"):
        llamacpp.named_file("a.gguf")


def test_the_page_holds_the_table_of_the_figures():
    file = llamacpp.FIGURES / llamacpp.FILE
    page = llamacpp.PAGE.read_text(encoding="utf-8")
    assert llamacpp.with_marked(page, "llamacpp", llamacpp.table(read_text(file) if file.is_file() else {})) == page
