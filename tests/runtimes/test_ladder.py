"""The runtime ladder: every runtime computes the same function, stock or compacted, or says why not."""

import json

import numpy as np
import pytest
import torch

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.runtimes import ladder as runtimes
from icd_lib.runtimes.ladder import RUNTIMES, build_runner, measure_ladder
from tests.tiny_encoders import batch, prune, tiny_bert

TOLERANCE = {"openvino_bf16": 0.15, "openvino_int8": 0.5}
CALIBRATION = [batch(2, 12, seed=seed) for seed in range(4)]


def runner_or_skip(runtime: str, model, inputs: dict, folder):
    try:
        return build_runner(runtime, model, inputs, folder, CALIBRATION, threads=1)
    except ResourceError as error:
        if runtime == "eager":
            raise
        pytest.skip(f"{runtime} is not available here: {error.args[0]}")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_computes_the_pruned_model(runtime, tmp_path):
    model = prune(tiny_bert())
    run = runner_or_skip(runtime, model, batch(2, 12), tmp_path)
    for inputs in (batch(2, 12), batch(3, 9)) if runtime != "compile" else (batch(2, 12),):
        with torch.no_grad():
            expected = model(**inputs).last_hidden_state.numpy()
        output = run(inputs)
        assert output.shape == expected.shape and output.dtype == np.float32
        assert abs(output - expected).max() < TOLERANCE.get(runtime, 1e-5)


def test_openvino_fp32_is_fp32_and_bf16_is_not(tmp_path):
    model, inputs = tiny_bert(), batch(4, 16)
    exact, rounded = (
        runner_or_skip(runtime, model, inputs, tmp_path / runtime)(inputs) for runtime in ("openvino", "openvino_bf16")
    )
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.numpy()
    assert abs(exact - expected).max() < 1e-5 < abs(rounded - expected).max()


def test_ladder_compares_arms_and_keeps_every_sample():
    models = {"dense": tiny_bert(), "iterative": prune(tiny_bert()), "again": tiny_bert()}
    inputs = [batch(2, 12), batch(1, 5)]
    seen = []
    ladder = measure_ladder(
        models, inputs, runtimes=("onnxruntime", "eager"), repeats=6, warmup=1, resamples=50, progress=seen.append
    )
    assert json.loads(json.dumps(ladder)) == ladder
    assert list(ladder["runtimes"]) == ["eager", "onnxruntime"] and len(seen) == 2
    for entry in ladder["runtimes"].values():
        assert entry["status"] == "measured" and set(entry["setup_s"]) == set(models)
        assert list(entry["shapes"]) == ["2x12", "1x5"]
        for shape in entry["shapes"].values():
            arms, samples = shape["arms"], shape["samples_ms"]
            assert all(len(samples[arm]) == 6 for arm in models)
            assert "vs_baseline" not in arms["dense"]
            expected = np.median(samples["iterative"]) / np.median(samples["dense"]) - 1
            assert arms["iterative"]["vs_baseline"]["value"] == pytest.approx(expected)
            assert all(arm["max_abs_error"]["value"] < 1e-5 for arm in arms.values())
    assert ladder["runtimes"]["eager"]["shapes"]["2x12"]["arms"]["dense"]["vs_eager"]["value"] == 0


def test_all_runtimes_get_the_same_threads_and_torch_gets_its_own_back():
    before = torch.get_num_threads()
    seen = []

    class Watched(type(tiny_bert())):
        def forward(self, *args, **kwargs):
            seen.append(torch.get_num_threads())
            return super().forward(*args, **kwargs)

    model = tiny_bert()
    model.__class__ = Watched
    wanted = 1 if before > 1 else 2
    ladder = measure_ladder(
        {"dense": model}, [batch(1, 5)], runtimes=("eager",), repeats=2, warmup=0, resamples=20, threads=wanted
    )
    assert ladder["threads"] == wanted and set(seen) == {wanted} and torch.get_num_threads() == before


def test_a_missing_package_is_not_measured_with_the_cure(monkeypatch):
    def missing(package):
        raise ResourceError(f"package {package} is not installed; run pip install {package}")

    monkeypatch.setattr(runtimes, "_require", missing)
    ladder = measure_ladder(
        {"dense": tiny_bert()}, [batch(1, 5)], runtimes=("eager", "openvino"), repeats=2, warmup=0, resamples=20
    )
    assert ladder["runtimes"]["openvino"]["status"] == "not_measured"
    assert "pip install openvino" in ladder["runtimes"]["openvino"]["reason"]
    assert ladder["runtimes"]["eager"]["status"] == "measured"


def test_compile_without_a_compiler_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ResourceError, match=r"C\+\+ compiler"):
        build_runner("compile", tiny_bert(), batch(1, 5), tmp_path)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: build_runner("tensorrt", model, batch(1, 5), "."), "openvino_bf16"),
        (lambda model: measure_ladder({"linear": model}, [batch(1, 5)]), "baseline"),
        (lambda model: measure_ladder({"dense": model}, [batch(1, 5)], runtimes=("tpu",)), "unknown runtime"),
    ],
)
def test_bad_requests_are_refused(call, says):
    with pytest.raises(MeasureError, match=says):
        call(tiny_bert())
