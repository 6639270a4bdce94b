"""benchmarks/frontier.py: it is planned with the curves of the place it is judged in, and points say which that is."""

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_problems import small_problem

from icd_lib.errors import ConfigError
from icd_lib.runtimes import RUNTIMES

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import frontier

CURVE = {"kept": [4, 48], "model_ms": [1.0, 5.0], "saved_ms_per_layer": [2.0, 0.0]}


def context_in(runtime: str, tables_of: str):
    run = SimpleNamespace(read_json=lambda rel: {"runtime": tables_of})
    return SimpleNamespace(run=run, target=SimpleNamespace(row=RUNTIMES[runtime]), progress=lambda line: None)


@pytest.fixture
def measured(monkeypatch):
    """How often width curves were measured."""
    calls = []

    def tables(context, inputs, progress):
        calls.append(context.target.row.name)
        return {"dense_ms": 5.0, "curves": {"ffn": CURVE}}

    monkeypatch.setattr(frontier, "measure_tables", tables)
    return calls


def test_curves_are_those_of_the_place(monkeypatch, measured):
    problem = small_problem()
    monkeypatch.setattr(frontier, "load_problem", lambda context, mode: problem)
    assert frontier.problem_of(context_in("eager", "eager"), "iterative") is problem and measured == []
    elsewhere = frontier.problem_of(context_in("openvino_int8", "eager"), "iterative")
    assert measured == ["openvino_int8"] and elsewhere.evidence.findings.dense_ms == 5.0
    assert list(elsewhere.evidence.findings.tables) == ["ffn"]
    assert elsewhere.evidence.findings.rates == problem.evidence.findings.rates


@pytest.mark.parametrize("runtime, precision", [("nothing", "fp32"), ("compile", "int8")])
def test_a_place_that_is_none_is_refused_by_name(runtime, precision):
    with pytest.raises(ConfigError, match=f"--runtime {runtime} --precision {precision} is no one place; name one of"):
        frontier.deploy_in(SimpleNamespace(), runtime, precision)


def test_a_point_is_judged_as_it_is_deployed(monkeypatch):
    problem = small_problem()
    best = SimpleNamespace(widths={"ffn.0": 3}, plan=None, model="float")
    monkeypatch.setattr(frontier, "solve", lambda varied, mode: SimpleNamespace(best=best))

    @contextmanager
    def judged_form(model, example):
        yield f"{model}, compiled"

    judged = []
    suite = SimpleNamespace(
        evaluate=lambda model, split: judged.append((model, split)), compare=lambda result, dense: {"own": 1}
    )
    row = RUNTIMES["openvino_int8"]
    context = SimpleNamespace(
        target=SimpleNamespace(row=row, judged_form=judged_form),
        suite=suite,
        judged=["unseen", "seen"],
        dense_result=lambda split: None,
        example=None,
    )
    found = frontier.point(context, replace(problem), "iterative", -0.2)
    assert judged == [("float, compiled", "unseen"), ("float, compiled", "seen")]
    assert found["runtime"] == "openvino_int8" and found["unseen"] == {"own": 1}


def test_every_place_has_files_of_its_own():
    assert frontier.part_of("eager") == "frontier" and frontier.part_of("openvino_int8") == "frontier_openvino_int8"
