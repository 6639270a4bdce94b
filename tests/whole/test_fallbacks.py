"""Every fallback can be asked for, says why it was taken, and stands as a badge on the pages and tables it touches."""

import json
from types import SimpleNamespace

import pytest
from report_factory import write_run
from table_factory import open_small, run_stages
from torch import nn

from icd_lib.errors import SolverTimeout
from icd_lib.measure.l2 import l2_hit_pct
from icd_lib.report import measure_tables, setup_tables
from icd_lib.report.results import Results
from icd_lib.run.artifacts import open_run
from icd_lib.stages import report
from icd_lib.workloads.model import setup
from icd_lib.workloads.model.measure import measure_energy

pytestmark = pytest.mark.wide


def context(**values):
    return SimpleNamespace(get=lambda path: values[path.replace(".", "_")])


def test_counters_that_are_switched_off_are_not_measured_and_say_so():
    energy = measure_energy(context(measure_energy=False, measure_shapes=[[1, 8]]), None)
    for found, key in ((l2_hit_pct(False), "measure.ncu"), (energy, "measure.energy")):
        assert found.is_missing and found.value is None and key in found.reason


@pytest.fixture
def run(tmp_path):
    run = open_run("bert", out=tmp_path)
    write_run(run.dir)
    return run


def edit(run, rel, change):
    value = json.loads((run.dir / rel).read_text())
    change(value)
    (run.dir / rel).write_text(json.dumps(value))


def pages(run):
    report.run_stage(run, lambda line: None)
    return [(run.dir / name).read_text() for name in ("index.html", "report.html")]


def test_unlocked_clocks_and_a_loaded_machine_are_badges_of_every_page(run):
    def disturb(measured):
        measured["latency"]["clocks"] = {"locked": False, "reason": "the scenario says so"}
        power = {"rounds": 6, "planned": 6, "cap": 6, "needed": 40, "effect": 0.02, "power": 0.8, "detectable": {}}
        measured["latency"]["taken"] = {"8x128": {"power": power, "warnings": ["load: other programs took 30 %"]}}

    edit(run, "measure/measure.json", disturb)
    for page in pages(run):
        assert "unlocked: the scenario says so" in page and "load: other programs took 30 %" in page


def test_a_solver_that_ran_out_of_time_is_a_badge(run):
    edit(run, "iterative/solve.json", lambda solve: solve["solver"]["ffn.0"].update(timed_out=True))
    assert any("solver time-out" in text and "iterative" in text for text in Results.load(run.dir).badges)
    assert all("solver time-out" in page for page in pages(run))


def test_a_checkpoint_that_the_hub_did_not_give_is_a_badge():
    named = {"model_checkpoint": "sentence-transformers/all-MiniLM-L6-v2"}
    quiet = {
        "checkpoint": SimpleNamespace(source="embedded"),
        "is_trained": True,
        "describe_data": dict,
        "model": nn.Linear(1, 1),
    }
    scenario = SimpleNamespace(scenario=SimpleNamespace(quick=False))
    for given, expected in ((named, 1), ({"model_checkpoint": None}, 0)):
        found = setup.badges(SimpleNamespace(**vars(context(**given)), **quiet, run=scenario))
        assert sum("hub offline" in text for text in found) == expected


def test_a_solver_without_time_tries_twice_and_stops(tmp_path):
    run = open_small(tmp_path, "solver.time_budget_s=1e-9", "calibration.pilots=0")
    run_stages(run, "setup", "graph")
    with pytest.raises(SolverTimeout, match="twice .* raise solver.time_budget_s"):
        run_stages(run, "solve[iterative]")
    assert not (run.dir / "iterative" / "perm_before.json").exists()


def test_clocks_can_be_called_unlocked(tmp_path):
    run = open_small(tmp_path, "measure.clocks=unlocked", "calibration.pilots=0")
    run_stages(run, "setup", "graph", "solve[linear]", "solve[oneshot]", "solve[iterative]", "measure", "validate")
    found = run.read_json("verdict.json")["stability"]
    assert found["tolerance_rel"] == 0.05 and "measure.clocks" in found["clocks"]["reason"]
    assert any(text.startswith("unlocked: the scenario") for text in Results.load(run.dir).badges)


TIMED = (measure_tables.latency, measure_tables.comparisons, measure_tables.gates, measure_tables.controls)


def badges_of(run, make):
    return make(Results.load(run.dir)).badges


def test_a_run_without_warnings_has_none_on_its_tables(run):
    edit(run, "setup/setup.json", lambda setup: setup.update(badges=[]))
    quiet = {"clocks": {"locked": True, "reason": None}, "taken": {}}
    edit(run, "measure/measure.json", lambda measure: measure["latency"].update(quiet))
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
    badge = "hub offline: the embedded copy was taken"
    edit(run, "setup/setup.json", lambda setup: setup.update(badges=[badge], badge_subjects={badge: "model"}))
    for make in (setup_tables.provenance, measure_tables.quality, measure_tables.gates):
        assert "hub offline" in badges_of(run, make)
    assert "hub offline" not in badges_of(run, measure_tables.latency)


@pytest.mark.parametrize("text", ["quick run: figures are rough", "random weights: a latency-only run"])
def test_what_concerns_the_whole_run_stands_on_every_table(run, text):
    edit(run, "setup/setup.json", lambda setup: setup.update(badges=[text]))
    for make in (*TIMED, measure_tables.quality, measure_tables.sizes, setup_tables.provenance, setup_tables.widths):
        assert text.partition(":")[0] in badges_of(run, make)
