"""From dense in PyTorch to the result as deployed: which steps a run has, where each runs, and what it loses."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from icd_lib.axes.compact import compact
from icd_lib.axes.double import Unrounded
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import ResourceError
from icd_lib.experiment.arms import ARMS
from icd_lib.models.families import find_adapter
from icd_lib.models.quantized import is_quantized, quantized_linears
from icd_lib.records.measured import DeployStep
from icd_lib.runtimes import RUNTIMES
from icd_lib.runtimes.base import Runtime
from icd_lib.runtimes.eager import Eager
from icd_lib.runtimes.onnxruntime import OnnxRuntime
from icd_lib.stages.measure import measure_latency
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from icd_lib.workloads.model import graph, measure
from icd_lib.workloads.model.arms import Saved, any_shape, scattered
from icd_lib.workloads.model.deploy import choose_target
from icd_lib.workloads.model.deployment import deployment_steps, judged_at_setup, plan_steps
from icd_lib.workloads.model.workload import ModelWorkload
from tests.tiny_domains import toy_encoder

KEPT = 32
FREE = (
    "codesign.quality_budget_pp=100",
    "codesign.dropin_budget_pp=null",
    "codesign.min_cosine=null",
    "codesign.strengths=[-0.2]",
    "codesign.max_rounds=1",
)
SMALL = (
    *FREE,
    "transform.axes=[ffn]",
    "transform.tile=4",
    "transform.distill_steps=0",
    "transform.sequential=false",
    "measure.shapes=[[2, 8], [1, 4]]",
    "measure.repeats=3",
    "measure.max_repeats=3",
    "measure.warmup=1",
    "measure.bootstrap=100",
    "solver.refine_steps=5",
)
INT8 = ("deploy.runtime=onnxruntime", "deploy.precision=int8")


def shuffled_columns(model, share: float):
    """The model in eight bits, of whose FFN columns a share stays float, at random places."""

    def left(axis, far):
        chosen = np.random.default_rng(len(axis)).permutation(len(far)) < share * len(far)
        return chosen if axis.startswith("ffn") else None

    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 60, (4, 12)))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return quantize(model, [batch], Recipe(left=left))[0], batch


def saved_of(model) -> Saved:
    """A result of which every FFN lost a third of its neurons, in a shuffled layout."""
    made, before, after, origin = copy.deepcopy(model), {}, {}, {}
    rng = np.random.default_rng(1)
    for axis in find_adapter(model).axes():
        if axis.name.partition(".")[0] in ("ffn", "heads"):
            before[axis.name], after[axis.name] = rng.permutation(axis.size), rng.permutation(axis.size)
            origin[axis.name] = after[axis.name][: KEPT if axis.name.startswith("ffn") else axis.size]
    for axis in find_adapter(made).axes():
        if axis.name in after:
            permute(made, axis, after[axis.name])
            compact(made, axis, np.arange(axis.size) < len(origin[axis.name]))
    return Saved("iterative", made, origin, before, after)


def steps_of(context, solved, arms=()):
    """Step → (arm, runtime, arms that it is held against)."""
    planned = plan_steps(context, solved, set(arms))
    return {item.step: (item.arm, item.target and item.target.row.name, list(item.against)) for item in planned}


@pytest.fixture
def deployed(make):
    """A context with a real toy model, deployed as the overrides say."""

    def context(*overrides, out="runs"):
        found = make(*SMALL, *overrides, out=out)
        found._loaded = (toy_encoder(), found.tokenizer)
        found.checkpoint.provenance = lambda: {"name": "toy"}
        return found

    return context


def test_where_a_runtime_rounds_and_the_result_is_quantised_all_is_told_apart(deployed):
    context, float_result = deployed(*INT8), saved_of(toy_encoder())
    own = saved_of(shuffled_columns(toy_encoder(), 0.2)[0])
    found = steps_of(context, own, {"scattered"})
    assert found == {
        "dense in PyTorch eager": ("dense_eager", "eager", []),
        "runtime alone": ("dense_fp32", "onnxruntime", ["dense_eager"]),
        "precision alone": ("dense", "onnxruntime_int8", ["dense_fp32"]),
        "S alone": ("iterative_fp32", "onnxruntime", ["dense_fp32"]),
        "Q alone": ("dense_quantized", "onnxruntime_int8", ["dense_fp32"]),
        "S and Q, linear's layout": ("same_transform", "onnxruntime_int8", ["dense_quantized"]),
        "S and Q, π₀'s order": ("scattered", "onnxruntime_int8", ["same_transform"]),
        "S and Q, iterative's layout": (
            "iterative",
            "onnxruntime_int8",
            ["same_transform", "scattered", "dense_quantized", "iterative_fp32"],
        ),
    }
    plainly = steps_of(context, float_result)
    assert "Q alone" not in plainly and plainly["S and Q, linear's layout"][2] == ["dense"]


def test_where_nothing_rounds_the_runtime_and_s_are_left(deployed):
    found = steps_of(deployed("deploy.runtime=onnxruntime"), saved_of(toy_encoder()))
    assert found == {
        "dense in PyTorch eager": ("dense_eager", "eager", []),
        "runtime alone": ("dense", "onnxruntime", ["dense_eager"]),
        "S, linear's layout": ("same_transform", "onnxruntime", ["dense"]),
        "S, iterative's layout": ("iterative", "onnxruntime", ["same_transform", "dense"]),
    }


def test_in_pytorch_at_fewer_bits_there_is_no_step_of_a_runtime(deployed):
    found = steps_of(deployed("deploy.precision=bf16"), saved_of(toy_encoder()))
    assert "runtime alone" not in found and found["precision alone"] == ("dense", "eager_bf16", ["dense_eager"])
    assert found["S alone"] == ("iterative_fp32", "eager", ["dense_eager"]) and "S and bf16, linear's layout" in found


def test_what_an_engine_cannot_do_is_not_measured(deployed, monkeypatch):
    class Coarse(OnnxRuntime):
        """An engine that has nothing but eight bits."""

    monkeypatch.setitem(RUNTIMES._rows, "coarse_int8", Coarse("coarse_int8", "coarse", precision="int8"))
    context = deployed("deploy.runtime=coarse", "deploy.precision=int8")
    solved = saved_of(toy_encoder())
    assert context.plain_target is None
    assert ARMS["dense_fp32"].maker("model")(context, solved) is None
    assert ARMS["iterative_fp32"].maker("model")(context, solved) is None
    assert steps_of(context, solved)["runtime alone"] == ("dense_fp32", None, ["dense_eager"])


def test_columns_that_stay_float_are_scattered_as_the_first_layout_has_them(deployed):
    context = deployed(*INT8)
    model, batch = shuffled_columns(toy_encoder(), 0.2)
    solved = saved_of(model)
    made = scattered(context, solved)
    with Unrounded():
        assert outputs_error(model_outputs(solved.model, batch), model_outputs(made, batch)) < 1e-5
    for number in (0, 1):
        axis = f"ffn.{number}"
        places = np.argsort(solved.before[axis])[solved.origin[axis]]
        wanted = solved.model.encoder.layer[number].output.dense.unrounded[np.argsort(places)]
        assert np.array_equal(made.encoder.layer[number].output.dense.unrounded, wanted)
    assert scattered(context, saved_of(toy_encoder())) is None, "in float there is nothing to gather"
    assert scattered(deployed(out="eager"), solved) is None


@pytest.mark.wide
def test_one_arm_is_compiled_for_inputs_of_any_shape_where_the_runtime_compiles_for_one(deployed):
    pytest.importorskip("openvino")
    solved = saved_of(toy_encoder())
    assert any_shape(deployed(*INT8), solved) is None
    context = deployed("deploy.runtime=openvino", "deploy.precision=fp32", out="fitted")
    arms = {"iterative": solved.model, "any_shape": any_shape(context, solved)}
    shapes = [tuple(shape) for shape in context.get("measure.shapes")]
    for found in measure.timed(context, arms):
        fitted = {arm: list(call.func.__self__.of_shape) for arm, call in found.runners.items()}
        assert fitted == {"iterative": shapes, "any_shape": []}
        outputs = [call() for call in found.runners.values()]
        assert abs(outputs[0] - outputs[1]).max() < 1e-5


class Refusing(Runtime):
    """A runtime that takes no model."""

    def prepare(self, model, example_inputs, **_):
        raise ResourceError("no room for it here")


def test_what_a_runtime_refuses_is_left_out_with_the_reason(deployed, monkeypatch):
    context = deployed(*INT8)
    monkeypatch.setitem(RUNTIMES._rows, "onnxruntime", Refusing("onnxruntime", "refusing"))
    row = Eager("onnxruntime_int8", "PyTorch in its place", precision="int8")
    monkeypatch.setitem(RUNTIMES._rows, row.name, row)
    workload = ModelWorkload(context.run)
    workload.__dict__["context"] = context
    model = context.model
    shapes = list(workload.timed({"dense": model, "dense_fp32": model, "dense_quantized": model}))
    assert [list(timed.runners) for timed in shapes] == [["dense", "dense_quantized"], ["dense"]]
    assert context.left_out == {"dense_fp32": "no room for it here"}
    assert any("dense_fp32 is not timed: no room" in line for line in context.lines)


def test_the_dense_models_judgement_of_the_set_up_is_taken_over(deployed):
    context = deployed(*INT8)
    judged = {"drop_pp": 0.2, "se_pp": 0.1, "split": "selection"}
    tried = [
        {"runtime": "onnxruntime_int8", "label": "a", "validation": judged},
        {"runtime": "eager", "label": "b", "reason": "slower"},
    ]
    deploy = {"runtime": "onnxruntime_int8", "label": "a", "precision": "int8", "asked": ["auto", "auto"], "why": ""}
    empty = {"model": {}, "badges": [], "environment": {}}
    context.run.write_json("setup/setup.json", empty | {"deploy": deploy | {"tried": tried}})
    assert judged_at_setup(context).drop_pp == 0.2
    context.run.write_json("setup/setup.json", empty | {"deploy": deploy})
    assert judged_at_setup(context) is None


@pytest.fixture
def whole(deployed, monkeypatch):
    """A workload that was solved for ONNX Runtime in int8, its arms timed: (workload, compared, controls, latency)."""

    def tables(context, inputs, progress):
        curve = {"kept": [4, 48], "model_ms": [6.0, 10.0], "saved_ms_per_layer": [2.0, 0.0]}
        return {"shape": [2, 8], "dense_ms": 10.0, "kind": "measured", "curves": {"ffn": curve}}

    monkeypatch.setattr(graph, "measure_tables", tables)

    def run(*overrides):
        context = deployed(*INT8, *overrides)
        deploy = {"deploy": as_json(choose_target(context))}
        context.run.write_json("setup/setup.json", {"model": {}, "badges": [], "environment": {}} | deploy)
        workload = ModelWorkload(context.run, context.progress)
        workload.__dict__["context"] = context
        context.run.write_json("graph/w.meta.json", workload.write_graphs())
        workload.learn()
        workload.solve("iterative")
        compared, controls = workload.compared(), workload.controls()
        return SimpleNamespace(
            workload=workload,
            context=context,
            compared=compared,
            controls=controls,
            latency=measure_latency(workload, compared | controls),
        )

    return run


@pytest.mark.wide
def test_a_run_in_int8_measures_and_judges_every_step(whole):
    run = whole("quantization.precision=int8", "quantization.outlier_share=0.1")
    shapes = run.latency["shapes"]
    extra = {"dense_fp32", "iterative_fp32", "dense_quantized", "scattered"}
    first, second = shapes.values()
    assert set(first) - set(second) == extra
    folder = run.context.run.dir / "iterative"
    assert not (folder / "undistilled").exists(), "nothing was distilled"
    assert (folder / "unquantized").is_dir() and not is_quantized(run.controls["iterative_fp32"])
    result = run.compared["iterative"]
    assert len(quantized_linears(run.controls["dense_quantized"])) == len(quantized_linears(result))

    solved = run.workload._saved["iterative"]
    gain = [
        {"step": "+ compensation", "validation": {"drop_pp": 1.0, "se_pp": 0.5}},
        {"step": "+ quantization (iterative)", "validation": None},
    ]
    steps = deployment_steps(run.context, solved, run.controls, shapes, gain)
    written = as_json(steps)
    assert as_json(from_json(list[DeployStep], written, "a file")) == written
    by_arm = {step.arm: step for step in steps}
    assert set(by_arm) == {"dense_eager", "dense", "same_transform", "iterative"} | extra
    assert not any(step.latency_ms.is_missing or step.vs_eager.is_missing for step in steps)
    eager = by_arm["dense_eager"]
    assert eager.vs_eager.value == 0 and eager.against == []
    ratio = by_arm["dense"].latency_ms.value / eager.latency_ms.value
    assert by_arm["dense"].vs_eager.value == pytest.approx(ratio - 1)
    assert {arm for arm, step in by_arm.items() if step.validation.is_judged} == {
        "dense",
        "iterative_fp32",
        "dense_quantized",
        "iterative",
    }
    assert by_arm["iterative_fp32"].validation.drop_pp == 1.0, "taken over, not judged again"
    assert (
        by_arm["iterative"].validation.drop_pp
        == run.context.run.read_json("iterative/solve.json")["validation"]["drop_pp"]
    )
    gathered = {item.other: item.shows for item in by_arm["iterative"].against}
    assert gathered["scattered"] == "float columns gathered (π → Q → π′)" and gathered["iterative_fp32"] == "Q after S"


@pytest.mark.wide
def test_the_steps_of_a_run_stand_in_what_it_measured(whole):
    run = whole()
    report = run.workload.measured(run.compared, run.controls, run.latency)
    names = [step["step"] for step in report["attribution"]]
    assert names[-4:] == [
        "re-permutation and removal",
        "+ compensation",
        "+ quantization (iterative)",
        "off the tile grid",
    ]
    by_arm = {step.arm: step for step in report["deployment"]}
    assert "dense_quantized" not in by_arm and "scattered" not in by_arm
    assert as_json(by_arm["iterative_fp32"].validation)["drop_pp"] == report["attribution"][-3]["validation"]["drop_pp"]


def test_in_pytorch_at_fp32_there_are_no_steps(deployed):
    assert deployment_steps(deployed(), saved_of(toy_encoder()), {}, {}, []) is None
    assert all(
        ARMS[arm].maker("model")(deployed(out=arm), saved_of(toy_encoder())) is None for arm in ARMS if ARMS[arm].step
    )
