"""The runtime ladder: arms compared within every runtime, which says why not where it is not available."""

import json
import sys

import numpy as np
import pytest
import torch

from icd_lib.errors import MeasureError
from icd_lib.measure import ladder as ladder_module
from icd_lib.measure.ladder import measure_ladder
from icd_lib.measure.latency import SETTLE_MS
from icd_lib.records.measured import AtShape, Ladder
from icd_lib.storage.atomic import to_json
from icd_lib.storage.record_json import from_json
from tests.tiny_encoders import batch, prune, tiny_bert

pytestmark = pytest.mark.wide


def record_of(ladder: dict) -> Ladder:
    """A ladder as it is read back from its file."""
    return from_json(Ladder, json.loads(to_json(ladder)), "ladder.json")


def test_ladder_compares_arms_and_keeps_every_sample():
    models = {"dense": tiny_bert(), "iterative": prune(tiny_bert()), "again": tiny_bert()}
    inputs = [batch(2, 12), batch(1, 5)]
    seen = []
    ladder = measure_ladder(
        models, inputs, runtimes=("onnxruntime", "eager"), repeats=6, warmup=1, resamples=50, progress=seen.append
    )
    read = record_of(ladder)
    assert read.shapes == ["2x12", "1x5"]
    assert {name: entry.shapes for name, entry in read.runtimes.items()} == {
        name: {label: AtShape(arms=found["arms"]) for label, found in entry.get("shapes", {}).items()}
        for name, entry in ladder["runtimes"].items()
    }
    assert list(ladder["runtimes"]) == ["eager", "onnxruntime"] and len(seen) == 2
    for name, entry in ladder["runtimes"].items():
        assert entry["status"] == "measured" and set(entry["setup_s"]) == set(models)
        assert list(entry["shapes"]) == ["2x12", "1x5"]
        for shape in entry["shapes"].values():
            arms, samples = shape["arms"], shape["samples_ms"]
            assert all(len(samples[arm]) == 6 for arm in models)
            assert "vs_baseline" not in arms["dense"]
            expected = np.median(samples["iterative"]) / np.median(samples["dense"]) - 1
            assert arms["iterative"]["vs_baseline"].value == pytest.approx(expected)
            assert all(arm["max_abs_error"].value < 1e-5 for arm in arms.values())
            assert set(samples) == set(models), "the baseline that runs beside each runtime is none of its arms"
            assert all("interleaved" in arm["vs_eager"].method and arm["vs_eager"].n == 6 for arm in arms.values()), (
                name
            )
    assert ladder["runtimes"]["eager"]["shapes"]["2x12"]["arms"]["dense"]["vs_eager"].value == 0


def test_the_speed_of_the_machine_in_a_minute_changes_no_ratio(monkeypatch):
    """The second runtime is timed while everything takes ten times as long."""
    timed = []

    def slower(calls, *, repeats, settle_ms, **_):
        timed.append(list(calls))
        assert settle_ms == SETTLE_MS, "threads of the runtime before spin on"
        pace = 10.0 ** len(timed)
        return {arm: np.full(repeats, pace * (2.0 if arm == ladder_module.BESIDE else 1.0)) for arm in calls}

    monkeypatch.setattr(ladder_module, "measure_interleaved", slower)
    ladder = measure_ladder(
        {"dense": tiny_bert()}, [batch(1, 5)], runtimes=("eager", "onnxruntime"), repeats=4, warmup=0, resamples=20
    )
    assert timed == [["dense"], ["dense", ladder_module.BESIDE]]
    arms = {name: entry["shapes"]["1x5"]["arms"]["dense"] for name, entry in ladder["runtimes"].items()}
    assert arms["eager"]["vs_eager"].value == 0 and arms["onnxruntime"]["vs_eager"].value == pytest.approx(-0.5)
    assert record_of(ladder).by_latency("dense", "1x5") == ["onnxruntime", "eager"], "not by the medians"


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


def test_an_arm_is_exported_once_for_all_runtimes_that_read_onnx(monkeypatch):
    exported, export = [], ladder_module.export_onnx

    def watched(model, *given):
        exported.append(model)
        return export(model, *given)

    monkeypatch.setattr(ladder_module, "export_onnx", watched)
    models = {"dense": tiny_bert(), "iterative": prune(tiny_bert())}
    names = ("onnxruntime", "openvino")
    ladder = measure_ladder(models, [batch(1, 5)], runtimes=names, repeats=2, warmup=0, resamples=20)
    assert exported == list(models.values())
    assert [entry["status"] for entry in ladder["runtimes"].values()] == ["measured"] * 2
    assert "vs_eager" not in ladder["runtimes"]["openvino"]["shapes"]["1x5"]["arms"]["dense"]
    read = record_of(ladder)
    assert sorted(read.by_latency("iterative", "1x5")) == sorted(names) and read.by_latency("linear", "1x5") == []


def test_a_missing_package_is_not_measured_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    ladder = measure_ladder(
        {"dense": tiny_bert()}, [batch(1, 5)], runtimes=("eager", "openvino"), repeats=2, warmup=0, resamples=20
    )
    assert ladder["runtimes"]["openvino"] == {
        "status": "not_measured",
        "label": "OpenVINO, fp32",
        "reason": "package openvino is not installed; run pip install openvino",
    }
    assert ladder["runtimes"]["eager"]["status"] == "measured"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: measure_ladder({"linear": model}, [batch(1, 5)]), "baseline"),
        (lambda model: measure_ladder({"dense": model}, [batch(1, 5)], runtimes=("tpu",)), "unknown runtime"),
    ],
)
def test_bad_requests_are_refused(call, says):
    with pytest.raises(MeasureError, match=says):
        call(tiny_bert())
