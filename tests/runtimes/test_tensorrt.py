"""TensorRT's row, as far as a CPU can tell: ONNX Runtime's provider for the CPU stands in, through the same binding."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.runtimes import rows_of
from icd_lib.runtimes.tensorrt import FP16, PROVIDER
from tests.tiny_encoders import batch, prune, tiny_bert
from tests.tiny_mambas import tiny_mamba

HERE = replace(FP16, device="cpu")


@pytest.mark.parametrize("change", [lambda model: model, prune], ids=["dense", "pruned"])
def test_it_computes_what_the_model_computes(change, tmp_path):
    model = change(tiny_bert())
    prepared = HERE.prepare(model, batch(2, 12), workdir=tmp_path)
    for inputs in (batch(2, 12), batch(3, 9, padded=True)):
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state.numpy()
        output = prepared.run(inputs)
        assert output.dtype == np.float32 and output.shape == expected.shape
        seen = inputs["attention_mask"].numpy().astype(bool)
        assert 0 < abs(output - expected)[seen].max() < HERE.tolerance  # it is half precision


def test_a_call_keeps_its_inputs_and_two_calls_have_their_own_outputs(tmp_path):
    prepared = HERE.prepare(tiny_bert(), batch(2, 12), workdir=tmp_path)
    inputs, other = batch(2, 12), batch(2, 12, seed=7)
    expected, second = prepared.run(inputs), prepared.call(other)
    call = prepared.call(inputs)
    inputs["input_ids"][:] = 0
    first = call()
    assert not np.array_equal(second().numpy(), expected) and np.array_equal(first.numpy(), expected)


def test_a_judge_reads_the_model_in_half_and_the_given_one_stays(tmp_path):
    model = tiny_bert()
    prepared = HERE.prepare(model, batch(2, 12), workdir=tmp_path)
    assert {parameter.dtype for parameter in prepared.judged.parameters()} == {torch.float16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_it_is_a_row_of_gpus_alone():
    assert "cuda_tensorrt_fp16" in rows_of("auto", "auto", "cuda:0") and FP16.engine == "cuda_tensorrt"
    assert rows_of("tensorrt", "fp16", "cuda:0") == rows_of("cuda_tensorrt", "auto", "cuda:0") == [FP16.name]
    assert "cuda_tensorrt_fp16" not in rows_of("auto", "auto")


def test_without_the_provider_it_names_the_cure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ResourceError, match="has no TensorRT; pip uninstall onnxruntime, then pip install"):
        FP16.check()


@pytest.mark.parametrize("loaded", [PROVIDER, "CUDAExecutionProvider"])
def test_it_asks_for_half_on_its_own_stream_and_takes_no_other_provider(loaded, monkeypatch, tmp_path):
    asked = {}

    def session(path, options, providers):
        asked.update(providers)
        return SimpleNamespace(get_providers=lambda: [loaded, "CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    stream = SimpleNamespace(cuda_stream=7)
    if loaded == PROVIDER:
        assert FP16.session(tmp_path / "model.onnx", torch.device("cuda:1"), stream).get_providers()[0] == PROVIDER
    else:
        with pytest.raises(ResourceError, match="fell back to CUDAExecutionProvider"):
            FP16.session(tmp_path / "model.onnx", torch.device("cuda:1"), stream)
    assert asked[PROVIDER] == {"device_id": 1, "user_compute_stream": "7", "trt_fp16_enable": True}
    assert next(iter(asked)) == PROVIDER


def test_a_mamba_has_no_file_that_it_could_read(tmp_path):
    with pytest.raises(ResourceError, match="cannot be exported"):
        HERE.prepare(tiny_mamba(), batch(1, 4), workdir=tmp_path)
