"""sentence-transformers reads an export, and pools as we do."""

import json

import numpy as np
import pytest
import torch

import icd_lib as icd
from icd_lib.deploy import verify
from icd_lib.deploy.record import check_export
from icd_lib.deploy.sentence import Pooling
from icd_lib.errors import ConfigError
from icd_lib.runtimes import RUNTIMES
from tests.tiny_domains import toy_encoder, toy_tokenizer


@pytest.mark.slow
def test_sentence_transformers_reads_it(tmp_path):
    pytest.importorskip("sentence_transformers")
    folder = icd.export(toy_encoder(), toy_tokenizer(tmp_path), tmp_path / "out", runtime="eager", max_length=7)
    found = check_export(folder)["verified"]["sentence-transformers"]
    assert found["status"] == "verified" and found["max_abs_error"] < 1e-5
    read = json.loads((folder / "sentence_bert_config.json").read_text())
    assert read["max_seq_length"] == 7


@pytest.mark.parametrize("mode", ["mean", "cls", "max"])
def test_pooling_is_that_of_sentence_transformers(mode):
    module = pytest.importorskip("sentence_transformers.sentence_transformer.modules.pooling")
    states, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    theirs = module.Pooling(4, mode)({"token_embeddings": states, "attention_mask": mask})["sentence_embedding"]
    theirs = torch.nn.functional.normalize(theirs).numpy()
    assert np.abs(Pooling(mode)(states.numpy(), mask.numpy()) - theirs).max() < 1e-6


def test_it_reads_no_more_than_tokenizer_and_model_take(tmp_path):
    tokenizer, config = toy_tokenizer(tmp_path), toy_encoder().config
    assert Pooling(max_length=10**6).within(tokenizer, config).max_length == config.max_position_embeddings
    assert Pooling(max_length=5).within(tokenizer, config).max_length == 5
    with pytest.raises(ConfigError, match="'sum' is unknown"):
        Pooling("sum")


def test_an_environment_that_is_half_made_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "project_root", lambda: tmp_path)
    monkeypatch.setattr(verify, "_is_there", lambda module: False)
    (tmp_path / ".venv-exports" / "onnx").mkdir(parents=True)
    assert verify.python_with(RUNTIMES["onnxruntime"].users) is None
    (tmp_path / ".venv-exports" / "onnx" / ".installed-1").touch()
    assert verify.python_with(RUNTIMES["onnxruntime"].users) == str(
        tmp_path / ".venv-exports" / "onnx" / "bin" / "python"
    )
