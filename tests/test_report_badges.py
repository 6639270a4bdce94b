"""Badges stand on every table that they concern, and on no other."""

import json

import pytest
from report_factory import write_run

from icd_lib.artifacts import open_run
from icd_lib.report import measure_tables, setup_tables
from icd_lib.report.results import Results

TIMED = (measure_tables.latency, measure_tables.comparisons, measure_tables.gates, measure_tables.controls)


@pytest.fixture
def run(tmp_path):
    run = open_run("bert", out=tmp_path)
    write_run(run.dir)
    return run


def edit(run, rel, change):
    value = json.loads((run.dir / rel).read_text())
    change(value)
    (run.dir / rel).write_text(json.dumps(value))


def badges_of(run, make):
    return make(Results.load(run.dir)).badges


def test_a_run_without_warnings_has_none_on_its_tables(run):
    edit(run, "setup/setup.json", lambda setup: setup.update(badges=[]))
    edit(run, "measure/measure.json", lambda measure: measure["latency"].update(clocks={"locked": True}, taken={}))
    for make in (*TIMED, measure_tables.quality, setup_tables.widths):
        assert badges_of(run, make) == ()


def test_unlocked_clocks_stand_on_what_was_timed(run):
    unlocked = {"locked": False, "reason": "the scenario says so"}
    edit(run, "setup/setup.json", lambda setup: setup.update(badges=[]))
    edit(run, "measure/measure.json", lambda measure: measure["latency"].update(clocks=unlocked, taken={}))
    for make in TIMED:
        assert badges_of(run, make) == ("unlocked",)
        assert '<span class="badge">unlocked</span>' in make(Results.load(run.dir)).to_html()
        assert "[unlocked]" in repr(make(Results.load(run.dir)))
    assert badges_of(run, measure_tables.quality) == badges_of(run, setup_tables.widths) == ()


def test_a_late_solver_stands_on_what_its_layouts_touch(run):
    edit(run, "iterative/solve.json", lambda solve: solve["solver"]["ffn.0"].update(timed_out=True))
    for make in (*TIMED, setup_tables.widths):
        assert "solver time-out" in badges_of(run, make)
    assert "solver time-out" not in badges_of(run, measure_tables.quality)


def test_an_embedded_checkpoint_in_place_of_the_hub_stands_on_model_and_quality(run):
    edit(run, "setup/setup.json", lambda setup: setup.update(badges=["hub offline: the embedded copy was taken"]))
    for make in (setup_tables.provenance, measure_tables.quality, measure_tables.gates):
        assert "hub offline" in badges_of(run, make)
    assert "hub offline" not in badges_of(run, measure_tables.latency)


@pytest.mark.parametrize("text", ["quick run: figures are rough", "random weights: a latency-only run"])
def test_what_concerns_the_whole_run_stands_on_every_table(run, text):
    edit(run, "setup/setup.json", lambda setup: setup.update(badges=[text]))
    for make in (*TIMED, measure_tables.quality, measure_tables.sizes, setup_tables.provenance, setup_tables.widths):
        assert text.partition(":")[0] in badges_of(run, make)
