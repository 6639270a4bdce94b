"""Where a run is deployed: the runtime that is named, or the fastest in which the dense model keeps the budget."""

import json
from types import SimpleNamespace

import pytest
from torch import nn

from icd_lib.errors import ConfigError, ResourceError
from icd_lib.records.deploy import Tried
from icd_lib.runtimes import RUNTIMES
from icd_lib.runtimes.eager import Eager, PreparedEager
from icd_lib.storage.devices import Device
from icd_lib.storage.record_json import as_json
from icd_lib.workloads.model import deploy
from icd_lib.workloads.model.deploy import check_runtimes, choose_target
from icd_lib.workloads.model.solve import selection_judge
from tests.tiny_domains import damage
from tests.tiny_mambas import tiny_mamba

ALL = (
    "deploy.runtime=auto",
    "deploy.precision=auto",
    "codesign.dropin_budget_pp=null",
    "codesign.quality_budget_pp=8",
    "codesign.selection_z=0",
)


class Ruined(Eager):
    """A runtime that computes another function, as faulty int8 kernels do."""

    def prepare(self, model: nn.Module, example_inputs: dict, **_) -> PreparedEager:
        return PreparedEager(damage(model.model, 1.0))


@pytest.fixture
def ruined(monkeypatch):
    row = Ruined("onnxruntime_int8", "a faulty int8", precision="int8")
    monkeypatch.setitem(RUNTIMES._rows, row.name, row)


@pytest.fixture
def timed(monkeypatch):
    """Latencies as they would be measured: runtime → change against eager, or the reason why there is none."""
    calls = []

    def set_to(**found):
        def latencies(context, names):
            calls.append(names)
            tried = [
                Tried(runtime=name, label=name, reason=value)
                if isinstance(value, str)
                else Tried(runtime=name, label=name, latency_rel={"8x128": value})
                for name, value in found.items()
            ]
            return sorted(tried, key=deploy.rank)

        monkeypatch.setattr(deploy, "dense_latencies", latencies)
        return calls

    return set_to


def test_a_fast_runtime_that_ruins_the_model_is_passed_over(make, timed, ruined):
    timed(eager=0.0, onnxruntime_int8=-0.8, eager_bf16=-0.4, openvino="it is not installed")
    context = make(*ALL)
    found = choose_target(context)
    assert found.runtime == "eager_bf16" and found.why == "the fastest of 4 for the dense model whose quality holds"
    tried = {item.runtime: item for item in found.tried}
    assert list(tried) == ["onnxruntime_int8", "eager_bf16", "eager", "openvino"], "the fastest first"
    assert "exceeds the budget" in tried["onnxruntime_int8"].reason and tried["onnxruntime_int8"].validation.drop_pp > 8
    assert tried["eager_bf16"].reason is None and tried["eager_bf16"].validation.split == "selection"
    assert tried["eager"].reason == "slower than eager_bf16" and tried["eager"].validation is None
    assert tried["openvino"].reason == "it is not installed"


@pytest.mark.parametrize(
    ("compiled", "taken", "reason"),
    [
        (-0.41, "openvino", "less than 3% faster than openvino, and it leaves no file that others load"),
        (-0.43, "compile", None),
        (-0.39, "openvino", "slower than openvino"),
    ],
)
def test_a_runtime_that_leaves_no_file_has_to_be_faster_by_more_than_the_noise(make, timed, compiled, taken, reason):
    timed(eager=0.0, compile=compiled, openvino=-0.4)
    found = choose_target(make("deploy.runtime=auto", "deploy.precision=fp32"))
    tried = {item.runtime: item for item in found.tried}
    assert found.runtime == taken and tried["compile"].reason == reason


@pytest.mark.parametrize(
    ("runtime", "precision", "fits"),
    [("auto", "int8", False), ("openvino", "fp32", False), ("auto", "fp32", True), ("eager", "fp32", True)],
)
def test_a_family_without_onnx_is_refused_before_anything_is_timed(runtime, precision, fits):
    asked = {"deploy.runtime": runtime, "deploy.precision": precision}
    asked_runtime = (asked["deploy.runtime"], asked["deploy.precision"])
    context = SimpleNamespace(model=tiny_mamba(), get=asked.get, asked_runtime=asked_runtime, device=Device())
    if fits:
        check_runtimes(context)
        return
    with pytest.raises(ResourceError, match="of MambaForCausalLM there is none: ONNX has no selective scan"):
        check_runtimes(context)


def test_what_was_found_is_kept_for_this_machine(make, timed, ruined, monkeypatch):
    monkeypatch.setattr(deploy, "disturbances", lambda conditions: [])
    calls = timed(eager=0.0, eager_bf16=-0.4)
    first = choose_target(make(*ALL))
    again = choose_target(make(*ALL, out="again"))
    assert as_json(again) == json.loads(json.dumps(as_json(first))) and len(calls) == 1
    choose_target(make(*ALL, "codesign.quality_budget_pp=7", out="other"))
    choose_target(make(*ALL, "graph.remeasure=true", out="more"))
    assert len(calls) == 3


def test_with_other_instructions_runtimes_are_compared_anew(make, timed, monkeypatch):
    monkeypatch.setattr(deploy, "disturbances", lambda conditions: [])
    calls = timed(eager=0.0)
    choose_target(make(*ALL))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    choose_target(make(*ALL, out="limited"))
    assert len(calls) == 2


def test_on_a_disturbed_machine_points_of_a_sweep_are_deployed_alike_and_nothing_else_is_kept(
    make, timed, monkeypatch, in_sweep
):
    monkeypatch.setattr(deploy, "disturbances", lambda conditions: ["load: other programs"])
    calls = timed(eager=0.0, eager_bf16=-0.4)
    with in_sweep():
        first, again = (choose_target(make(*ALL, f"transform.rate={rate}")) for rate in (0.3, 0.7))
        assert as_json(again) == json.loads(json.dumps(as_json(first))) and len(calls) == 1
        assert again.disturbed == ["load: other programs"]
        choose_target(make(*ALL, "graph.remeasure=true"))
    choose_target(make(*ALL))
    assert len(calls) == 3


def test_on_a_disturbed_machine_nothing_is_kept(make, timed, monkeypatch):
    monkeypatch.setattr(deploy, "disturbances", lambda conditions: ["load: other programs"])
    calls = timed(eager=0.0)
    for out in ("one", "two"):
        assert choose_target(make(*ALL, out=out)).disturbed == ["load: other programs"]
    assert len(calls) == 2


def test_without_rounding_nothing_is_judged(make, timed):
    timed(eager=0.0, onnxruntime=-0.3)
    context = make("deploy.runtime=auto", "deploy.precision=fp32")
    found = choose_target(context)
    assert found.runtime == "onnxruntime" and context.model.calls == 0


def test_random_weights_are_deployed_where_nothing_rounds(make, timed):
    timed(eager=0.0, openvino_int8=-0.8, openvino=-0.2)
    context = make(*ALL)
    context.checkpoint.weights = "random"
    found = choose_target(context)
    assert found.runtime == "openvino" and "quality is not measured" in found.tried[0].reason


def test_where_nothing_works_every_reason_is_said(make, timed):
    timed(openvino="not installed", openvino_int8="no nncf")
    with pytest.raises(ResourceError, match="openvino: not installed; openvino_int8: no nncf"):
        choose_target(make("deploy.runtime=openvino", "deploy.precision=auto"))


def test_a_precision_that_an_engine_does_not_have(make):
    with pytest.raises(ConfigError, match=r"deploy.precision=int8: compile \(deploy.runtime\) computes in fp32, bf16"):
        choose_target(make("deploy.runtime=compile", "deploy.precision=int8"))


def test_the_one_that_is_named_is_tried_at_once(make, monkeypatch):
    found = choose_target(make("deploy.precision=bf16"))
    assert found.runtime == "eager_bf16" and found.tried == []

    def refuse(*_, **__):
        raise ResourceError("it takes no such graph")

    monkeypatch.setattr(type(RUNTIMES["eager_bf16"]), "prepare", refuse)
    with pytest.raises(ResourceError, match="takes no such graph"):
        choose_target(make("deploy.precision=bf16", out="again"))


def test_an_emulated_precision_is_said(make, monkeypatch):
    monkeypatch.setattr(deploy, "emulated", lambda precision: f"{precision} is emulated")
    assert choose_target(make("deploy.precision=bf16")).why == "the scenario names it; bf16 is emulated"


def test_among_several_an_emulated_precision_is_said_and_the_faster_one_is_taken(make, timed, monkeypatch):
    monkeypatch.setattr(deploy, "emulated", lambda precision: "bf16 is emulated" if precision == "bf16" else None)
    timed(eager=0.0, eager_bf16=0.7)
    found = choose_target(make("deploy.runtime=eager", "deploy.precision=auto"))
    assert found.runtime == "eager" and "emulated" not in found.why
    assert found.tried[1].reason == "slower than eager; bf16 is emulated"


def test_an_emulated_precision_that_is_the_fastest_all_the_same_is_said(make, timed, monkeypatch):
    monkeypatch.setattr(deploy, "emulated", lambda precision: "bf16 is emulated" if precision == "bf16" else None)
    timed(eager=0.0, eager_bf16=-0.2)
    found = choose_target(make(*ALL))
    assert found.runtime == "eager_bf16" and found.why.endswith("whose quality holds; bf16 is emulated")


def test_candidates_are_judged_where_they_are_deployed(make, timed, ruined):
    timed(onnxruntime_int8=-0.8, eager=0.0)
    context = make("deploy.runtime=onnxruntime", "deploy.precision=int8")
    judgement = selection_judge(context)(context.model)
    assert judgement.drop_pp > 8, "the model is the dense one; the runtime ruins it"
    plain = make(out="plain")
    assert selection_judge(plain)(plain.model).drop_pp == 0


def test_later_stages_read_what_was_found(make, timed):
    timed(eager=0.0, eager_bf16=-0.4)
    context = make(*ALL)
    context.run.write_json(
        "setup/setup.json", {"model": {}, "badges": [], "environment": {}, "deploy": as_json(choose_target(context))}
    )
    assert context.target.row.name == "eager_bf16"
    assert make(out="plain").target.is_reference, "what names one runtime needs no file"
