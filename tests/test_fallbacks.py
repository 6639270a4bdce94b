"""Every fallback can be asked for, says why it was taken, and stands on the pages as a badge."""

import json
from types import SimpleNamespace

import pytest
from report_factory import write_run
from table_factory import open_small, run_stages

from icd_lib.artifacts import open_run
from icd_lib.errors import SolverTimeout
from icd_lib.measure.l2 import l2_hit_pct
from icd_lib.report.results import Results
from icd_lib.stages import report, setup
from icd_lib.stages.measure import measure_energy


def context(**values):
    return SimpleNamespace(get=lambda path: values[path.replace(".", "_")])


def test_counters_that_are_switched_off_are_not_measured_and_say_so():
    energy = measure_energy(context(measure_energy=False, measure_shapes=[[1, 8]]), None)
    for found, key in ((l2_hit_pct(False), "measure.ncu"), (energy, "measure.energy")):
        assert found["kind"] == "not_measured" and found["value"] is None and key in found["reason"]


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
    quiet = {"checkpoint": SimpleNamespace(source="embedded"), "is_trained": True}
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
