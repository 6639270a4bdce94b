"""Which runtime of the ladder is named the fastest at every shape, and what is judged of it there."""

import pytest
from torch import nn

from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.metric import figure
from icd_lib.models.quantized import has_eight_bits
from icd_lib.records.measured import Ladder
from icd_lib.report import measure_tables
from icd_lib.report.results import Results
from icd_lib.runtimes import RUNTIMES
from icd_lib.runtimes.eager import Eager, PreparedEager
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.transforms.quantization.calibrate import Recipe, quantize
from icd_lib.workloads.model import measure
from icd_lib.workloads.model.measure import fastest_that_holds, form_in, judge_runtime, objection
from tests.tiny_domains import damage, toy_encoder

BUDGETS = ("codesign.dropin_budget_pp=null", "codesign.quality_budget_pp=8", "codesign.selection_z=0")


class Ruined(Eager):
    """A runtime that computes another function, as faulty int8 kernels do."""

    def prepare(self, model: nn.Module, example_inputs: dict, **_) -> PreparedEager:
        return PreparedEager(damage(getattr(model, "model", model), 1.0))


@pytest.fixture
def ruined(monkeypatch):
    row = Ruined("onnxruntime_int8", "a faulty int8", precision="int8")
    monkeypatch.setitem(RUNTIMES._rows, row.name, row)


def ladder(**times) -> dict:
    """A ladder of two shapes: runtime → change of the result against eager dense at 8x16 and at 1x8."""

    def entry(name, values):
        shapes = {}
        for shape, value in zip(("8x16", "1x8"), values, strict=True):
            ms = figure(10 * (1 + value), "ms", "measured", n=3, method="median")
            change = figure(value, "fraction", "measured", n=3, method="paired")
            error = figure(0.0, "1", "measured", n=1, method="largest difference")
            shapes[shape] = {"arms": {RESULT: {"latency_ms": ms, "vs_eager": change, "max_abs_error": error}}}
        return {"status": "measured", "label": name, "setup_s": {}, "shapes": shapes}

    return {"baseline": DENSE, "threads": 1, "runtimes": {name: entry(name, values) for name, values in times.items()}}


@pytest.fixture
def models(make):
    model = make().model
    return {DENSE: model, RESULT: model}


def test_every_shape_has_a_fastest_of_its_own_and_each_runtime_is_judged_once(make, models, monkeypatch):
    judged = []
    monkeypatch.setattr(measure, "judge_runtime", lambda context, name, models: judged.append(name) or {"reason": name})
    found = fastest_that_holds(
        make(*BUDGETS), ladder(eager=(-0.1, -0.1), eager_bf16=(-0.5, -0.2), openvino=(-0.3, -0.6)), models
    )
    assert found["fastest"]["runtime"] == "eager_bf16" and found["fastest_at"]["1x8"]["runtime"] == "openvino"
    assert judged == ["eager_bf16", "openvino"] and found["refused"] == {}
    again = fastest_that_holds(make(*BUDGETS), ladder(eager=(-0.1, -0.1), eager_bf16=(-0.5, -0.2)), models)
    assert again["fastest_at"]["1x8"] == again["fastest"] and judged[2:] == ["eager_bf16"]


def test_one_that_ruins_the_model_is_refused_at_all_shapes_with_the_reason(make, models, ruined):
    context = make(*BUDGETS)
    found = fastest_that_holds(context, ladder(eager=(-0.1, -0.1), onnxruntime_int8=(-0.8, -0.8)), models)
    assert found["fastest"]["runtime"] == found["fastest_at"]["1x8"]["runtime"] == "eager"
    assert "exceeds the budget" in found["refused"]["onnxruntime_int8"]
    assert sum("passed over" in line for line in context.lines) == 1
    read = from_json(Ladder, as_json(ladder(eager=(-0.1, -0.1)) | found), "ladder.json")
    assert list(read.judged) == ["eager"] and read.at("1x8").runtime == "eager"


def test_where_nothing_holds_there_is_no_fastest(make, models, ruined):
    found = fastest_that_holds(make(*BUDGETS), ladder(onnxruntime_int8=(-0.8, -0.8)), models)
    assert found["fastest"] is None and found["fastest_at"] == {"1x8": None} and len(found["refused"]) == 1


def test_what_does_not_round_and_what_cannot_be_judged_is_not_objected_to(make, models, ruined):
    context = make(*BUDGETS)
    assert objection(context, "eager", models[RESULT]) is None and context.model.calls == 0
    assert "fixed" not in (objection(context, "eager_bf16", models[RESULT]) or "")
    assert objection(context, "onnxruntime_int8", models[RESULT]) is not None
    context.checkpoint.weights = "random"
    assert objection(context, "onnxruntime_int8", models[RESULT]) is None
    assert judge_runtime(context, "onnxruntime_int8", models)["quality"] is None


def test_the_result_is_judged_on_every_split_in_the_runtime(make, models, ruined):
    context = make(*BUDGETS)
    found = judge_runtime(context, "onnxruntime_int8", models)
    assert list(found["quality"]) == [DENSE, RESULT] and list(found["more"]) == ["seen"] == [
        split for split in context.judged if split != context.judging
    ]
    assert found["quality"][RESULT]["own"]["drop_pp"] > 8 and found["more"]["seen"]["own"]["drop_pp"] > 8
    plain = judge_runtime(context, "eager_bf16", models)
    assert abs(plain["more"]["seen"]["own"]["drop_pp"]) < 8


def test_the_table_marks_the_fastest_at_every_shape(tmp_path):
    told = ladder(eager=(-0.1, -0.7), openvino=(-0.5, -0.2))
    told |= {"fastest": {"runtime": "openvino", "reason": "no rounding"}}
    told |= {"fastest_at": {"1x8": {"runtime": "eager", "reason": "no rounding"}}}
    results = Results(dir=tmp_path, ladder=from_json(Ladder, as_json(told), "ladder.json"))
    table = measure_tables.ladder(results)
    marked = {(row[0], row[1]) for row in table.rows if "fastest" in row[2]}
    assert marked == {("openvino", "8x16"), ("eager", "1x8")}
    assert "iterative is fastest at 8x16 in openvino" in table.note and "at 1x8 in eager" in table.note


def test_a_quantised_model_computes_in_floats_where_the_runtime_does(make):
    context = make()
    plain = toy_encoder()
    rounded = quantize(plain, context.deploy_calibration[:1], Recipe(compensate=False))[0]
    assert has_eight_bits(rounded) and not has_eight_bits(form_in("eager_bf16", rounded))
    assert form_in("openvino_int8", rounded) is rounded and form_in("eager_bf16", plain) is plain
