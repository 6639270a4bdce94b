"""How a variant is timed while a plan is made, and what of it later runs find."""

from types import SimpleNamespace

import pytest

from icd_lib.axes.kinds import granules
from icd_lib.execute.sweep import shared_folder
from icd_lib.workloads.model import graph
from icd_lib.workloads.model.graph import call_for_clock, known_sensitivity, measure_tables
from tests.tiny_domains import toy_encoder


def test_width_curves_are_timed_where_models_are_deployed_at_every_shape_of_the_plan(make):
    context, dense, seen = make("deploy.shapes=[[2, 8], [1, 4]]"), toy_encoder(), []

    def call(model, inputs):
        seen.append((tuple(inputs["input_ids"].shape), model))
        return lambda: model(**inputs)

    row = SimpleNamespace(name="another_place", precision="fp32", fits_shapes=False)
    context.target = SimpleNamespace(row=row, enqueue=call, time_round=None)
    settings = SimpleNamespace(tiles=granules(context.get("transform.tile")))
    tables = measure_tables(context, SimpleNamespace(dense=dense, settings=settings), lambda line: None)
    assert {shape for shape, _ in seen} == {(2, 8), (1, 4)} and len(seen) > 2, "the dense model and narrower ones"
    assert tables["runtime"] == "another_place" and tables["shapes"] == [[2, 8], [1, 4]]
    assert tables["dense_ms"] > 0 and tables["curves"]


@pytest.mark.parametrize(
    "section, row, plain",
    [
        (None, "int8", True),
        ({"precision": "int8", "alpha": None}, "fp32", True),
        ({"precision": "int8", "alpha": None}, "int8", False),
        ({"precision": "int4_weights", "alpha": None}, "int8", True),
        ({"precision": "int8_weights", "alpha": None}, "int8", True),
        ({"precision": "mixed_weights", "alpha": None}, "int8", True),
    ],
)
def test_only_eight_bit_products_are_rounded_for_the_clock(section, row, plain):
    target = SimpleNamespace(row=SimpleNamespace(precision=row), enqueue=lambda model, inputs: None)
    context = SimpleNamespace(target=target, config={"quantization": section})
    assert (call_for_clock(context) is target.enqueue) == plain


def test_sensitivity_is_kept_for_runs_of_the_same_model_text_and_sources(make, monkeypatch):
    blocks, measured = [{"axis": "ffn.0", "rate": 0.1 + 0.2}], []
    monkeypatch.setattr(graph, "sensitivity_map", lambda observed, work: measured.append(work) or blocks)
    observed = SimpleNamespace(ridge=0.01)
    assert known_sensitivity(make(), observed) == known_sensitivity(make(out="again"), observed) == blocks
    assert known_sensitivity(make("transform.rate=0.3", out="stronger"), observed) == blocks and len(measured) == 1
    for changed in (make("data.calibration_texts=39"), make("seed=1"), make(sha256="another")):
        assert known_sensitivity(changed, observed) == blocks
    known_sensitivity(make(), SimpleNamespace(ridge=0.02))
    assert len(measured) == 5
    monkeypatch.setattr(graph, "sources_sha256", lambda: "changed")
    known_sensitivity(make(), observed)
    assert len(measured) == 6


@pytest.fixture
def curves(make, monkeypatch):
    """Measures width curves that cost nothing; gives the tables, and counts what was measured."""
    count = iter(range(100))
    monkeypatch.setattr(graph, "measure_width_curves", lambda *given, **more: (float(next(count)), {}))

    def measure(*overrides, out="runs"):
        context = make("measure.shapes=[[2, 8]]", *overrides, out=out)
        inputs = SimpleNamespace(dense=toy_encoder(), settings=SimpleNamespace(tiles={"ffn": 4, "heads": 1}))
        return measure_tables(context, inputs, context.progress)["dense_ms"]

    return measure


def test_curves_are_those_of_any_quantization_that_the_clock_does_not_see(curves, monkeypatch):
    monkeypatch.setattr(graph, "disturbances", lambda conditions: [])
    assert curves() == curves("quantization.precision=fp8_storage") == curves("quantization.precision=int8") == 0.0
    assert curves("measure.shapes=[[1, 8]]") == 1.0


def test_curves_of_a_disturbed_machine_are_used_in_the_whole_sweep_and_not_after_it(curves, monkeypatch, tmp_path):
    monkeypatch.setattr(graph, "disturbances", lambda conditions: ["load"])
    assert (curves(), curves(out="other")) == (0.0, 1.0), "a run of its own measures again"
    with shared_folder(tmp_path / "runs"):
        assert (curves(), curves("data.test_items=50")) == (2.0, 2.0)
        assert curves("graph.remeasure=true") == 3.0
    assert curves() == 4.0
    with shared_folder(tmp_path / "runs"):
        assert curves() == 5.0
