"""Arms, comparisons and metrics are rows: whole, about each other, and open to rows from outside."""

from types import SimpleNamespace

import pytest

from icd_lib.errors import ConfigError
from icd_lib.experiment.arms import ARMS, CONTROL, DENSE, MODE, MODEL, MODES, ROWS, Arm, controls_of, workload_of
from icd_lib.experiment.comparisons import (
    COMPARISONS,
    Comparison,
    Pair,
    comparisons_of,
    in_page_order,
    judged_names,
    pairs_to_see,
)
from icd_lib.experiment.gates import judge
from icd_lib.experiment.metrics import METRICS, OUTSIDE, Metric, metrics_of
from icd_lib.experiment.verdict import latency_sections, other_verdicts, outside_metrics
from icd_lib.metric import figure
from icd_lib.records.decoding import DECODING, Decoding
from icd_lib.records.generation import EXPORTED_ARM, GENERATION, Generation


@pytest.fixture
def outside(monkeypatch):
    """Adds a row to a table for one test."""

    def add(table, name, row):
        monkeypatch.setitem(table._rows, name, row)

    return add


@pytest.mark.parametrize("workload", [MODEL, ROWS])
def test_every_arm_that_is_compared_exists_in_the_workload_and_every_control_is_made(workload):
    there = {name for name, arm in ARMS.items() if workload in arm.words}
    for row in comparisons_of(workload):
        assert {row.arm, row.pairs[workload].other} <= there, row.key
    assert {arm for pair in pairs_to_see(workload) for arm in pair} <= there
    for arm in controls_of(workload):
        assert callable(arm.maker(workload)) and arm.maker(workload).__name__ == arm.name


@pytest.mark.parametrize("workload", [MODEL, ROWS])
def test_rounds_are_taken_for_the_result_first_and_for_the_control(workload):
    expected = [("iterative", "dense"), ("iterative", "linear"), ("iterative", "oneshot"), ("linear", "dense")]
    assert pairs_to_see(workload) == [*expected, ("dense_again", "dense")]


def test_pages_have_an_order_of_their_own():
    models = [
        "same_transform",
        "same_quality",
        "vs_oneshot",
        "vs_dense",
        "vs_eager",
        "any_shape_vs_eager",
        "placebo",
        "aa_control",
    ]
    rows = ["same_transform", "same_quality", "vs_packed", "vs_oneshot", "placebo", "vs_dense", "aa_control"]
    assert [row.key for row in in_page_order(MODEL)] == models
    assert [row.key for row in in_page_order(ROWS)] == rows


def test_modes_are_the_rows_of_that_role():
    assert tuple(name for name, arm in ARMS.items() if arm.role == MODE) == MODES
    assert workload_of({}) == workload_of({"workload": {"kind": "model"}}) == MODEL
    assert {workload_of({"workload": {"kind": kind}}) for kind in ("mock", "trace")} == {ROWS}


def test_sections_hold_the_change_of_latency_and_whether_the_control_is_clean():
    samples = {"8x128": {"dense": [2.0] * 20, "dense_again": [2.0] * 20, "iterative": [1.0] * 20}}
    found = latency_sections(samples, MODEL, seed=0, resamples=100)
    assert found["vs_dense"]["latency_rel"].value == pytest.approx(-0.5)
    assert found["vs_dense"]["shapes"]["8x128"] == found["vs_dense"]["latency_rel"]
    assert found["same_quality"]["latency_rel"].is_missing
    assert "linear" in found["same_quality"]["latency_rel"].reason
    assert found["aa_control"]["contains_zero"] == {"8x128": True} and set(found["placebo"]) == {"8x128"}
    assert "vs_packed" not in found and "vs_packed" in latency_sections(samples, ROWS, seed=0, resamples=100)


def test_a_comparison_from_outside_is_timed_and_put_to_the_limits(outside):
    outside(ARMS, "toy", Arm("toy", CONTROL, {MODEL: "a toy"}, {MODEL: lambda context, solved: None}))
    pair = {MODEL: Pair("toy", "iterative vs a toy", "a toy")}
    outside(COMPARISONS, "vs_toy", Comparison("vs_toy", pair, "toy", limited=True, seen=True))
    assert ("iterative", "toy") in pairs_to_see(MODEL) and ("iterative", "toy") not in pairs_to_see(ROWS)
    assert [row.key for row in in_page_order(MODEL)][-2:] == ["vs_toy", "aa_control"]
    samples = {"8x128": {"iterative": [1.0] * 20, "toy": [2.0] * 20, "dense": [2.0] * 20, "dense_again": [2.0] * 20}}
    sections = latency_sections(samples, MODEL, seed=0, resamples=100)
    assert sections["vs_toy"]["latency_rel"].value == pytest.approx(-0.5)
    gates = {"smoke": {"latency_rel": -0.1}, "strict": {"latency_rel": -0.6}}
    assert other_verdicts(gates, sections, "same_transform")["vs_toy"] == {"smoke": "pass", "strict": "fail"}
    assert "toy" in {arm.name for arm in controls_of(MODEL)} and "vs_toy" not in judged_names()


@pytest.fixture
def folder(tmp_path):
    """A run's folder with nothing in it."""
    return SimpleNamespace(path=lambda name: tmp_path / name)


def test_a_metric_from_outside_is_measured_and_judged(outside, folder):
    assert outside_metrics(folder, {}) == {}
    given = figure(2.0, "widgets", "measured", n=3, method="counted", ci95=(1.0, 3.0))
    outside(METRICS, "toy", Metric("toy", "widgets", "widgets", "widgets", measure=lambda run, report: given))
    found = outside_metrics(folder, {})
    assert found == {"toy": given} and [row.key for row in metrics_of(OUTSIDE)] == ["token_rel", "toy"]
    assert judge({"toy": 3.5}, found).status == "pass" and judge({"toy": 2.5}, found).status == "fail"


@pytest.mark.parametrize(("name", "kind"), [(GENERATION, Generation), (DECODING, Decoding)])
def test_time_per_token_is_that_of_what_is_exported(folder, name, kind):
    folder.path(name).parent.mkdir()
    folder.path(name).write_text("{}")
    faster = figure(-0.7, "fraction", "measured", n=9, method="median", ci95=(-0.8, -0.6))
    arms = {EXPORTED_ARM: SimpleNamespace(step_vs_dense=faster)}
    known = {(kind, name): SimpleNamespace(clock=[SimpleNamespace(arms=arms)])}
    folder.read = lambda kind, name: known[kind, name]
    assert outside_metrics(folder, {}) == {"token_rel": faster}
    arms.clear()
    assert outside_metrics(folder, {})["token_rel"].is_missing


def test_without_a_limit_of_latency_no_other_comparison_is_put_to_it():
    section = {"latency_rel": figure(-0.5, "fraction", "measured", n=9, method="median", ci95=(-0.6, -0.4))}
    sections = {key: section for key in COMPARISONS}
    gates = {"smoke": {"latency_rel": None}, "strict": {"latency_rel": -0.2}}
    assert {tuple(states) for states in other_verdicts(gates, sections, "same_transform").values()} == {("strict",)}


def test_a_metric_that_there_is_not_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="'latency_re' is none of the metrics; did you mean 'latency_rel'"):
        judge({"latency_re": -0.1}, {})
    assert DENSE not in judged_names()
