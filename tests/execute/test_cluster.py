"""Points on workers: who is taken, who is refused by name, what times runs alone, and who dies costs a retry."""

import json
from collections import Counter

import pytest
from cluster_work import die_once, die_timing, fail, note, notes

from icd_lib.errors import ResourceError
from icd_lib.execute import cluster as module
from icd_lib.execute.cluster import check_workers, connected, describe_worker, local_cluster, run_parts
from icd_lib.execute.point import Job, this_machine
from icd_lib.execute.sweep import Course, run_sweep
from icd_lib.sweeps.outcome import read_outcomes
from icd_lib.sweeps.plan import sweep_of

RATES = {"transform.dead_share": [0.3, 0.5, 0.7]}
NAMES = ["dead-share-0.3", "dead-share-0.5", "dead-share-0.7"]


def described(machine="m1", **changes):
    return {"same": {"icd_lib": "1", "torch": "2.13"}, "machine": machine, "sees_folder": True} | changes


@pytest.mark.parametrize(
    ("found", "timing", "says"),
    [
        ({}, set(), "no worker; start one with"),
        ({"a": described()}, set(), "no worker has the resource 'timing'"),
        ({"a": described(same={"icd_lib": "1", "torch": "2.11"})}, {"a"}, "worker a has torch 2.11, this process 2.13"),
        ({"a": described(same={"icd_lib": "1"})}, {"a"}, "worker a has torch none"),
        ({"a": ModuleNotFoundError("No module named 'icd_lib'")}, {"a"}, "worker a cannot run icd_lib (ModuleNotFound"),
        ({"a": described(), "b": described(sees_folder=False)}, {"a"}, "worker b does not see the sweep's folder"),
        ({"a": described(), "b": described()}, {"a", "b"}, "2 workers with the resource 'timing' are on one machine"),
    ],
)
def test_workers_that_do_not_fit_are_refused_by_name(found, timing, says):
    with pytest.raises(ResourceError) as caught:
        check_workers(found, described(), timing)
    assert says in str(caught.value)


def test_workers_that_fit_are_taken():
    check_workers({"a": described(), "b": described("m2"), "c": described()}, described(), {"a", "b"})


def test_a_machine_has_one_name_and_a_worker_tells_what_has_to_be_equal(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    told = describe_worker(str(tmp_path / "sweep.json"))
    assert told["machine"] == this_machine() and len(told["machine"]) == 6 and told["sees_folder"]
    assert {"icd_lib", "icd_lib's sources", "torch", "numpy"} <= told["same"].keys()
    assert not describe_worker(str(tmp_path / "gone"))["sees_folder"]


def test_a_point_that_finishes_on_another_machine_is_run_again_there_from_the_start(tmp_path, monkeypatch):
    ran = []

    class Recorded(Job):
        def run(self, run, parts, echo=None):
            ran.append((parts, self.force))

    point = sweep_of({"base": "mock", "grid": RATES}, "mine").points[0]
    monkeypatch.setattr(module, "with_figures", lambda job, outcome: outcome)
    job = Recorded(point, tmp_path / "mine", "out")
    assert module.work(job, "begin").outcome is None
    assert module.work(job, "finish", this_machine()).outcome.is_done
    assert module.work(job, "finish", "elsewhere").outcome.is_done
    assert ran == [(("begin",), False), (("finish",), False), (("begin", "solve", "finish"), True)]


def test_a_scheduler_that_is_not_there_is_named_with_the_cure(tmp_path, monkeypatch):
    with pytest.raises(ResourceError, match="there is no scheduler file"), connected(str(tmp_path / "gone.json")):
        pass
    pytest.importorskip("distributed")
    monkeypatch.setattr(module, "CONNECT_S", 1.0)
    with pytest.raises(ResourceError, match="no scheduler answers at tcp://127.0.0.1:9"):
        with connected("tcp://127.0.0.1:9"):
            pass


@pytest.fixture
def client():
    """A real scheduler and two real worker processes on loopback; one has the resource."""
    pytest.importorskip("distributed")
    with local_cluster(2) as file, connected(file) as found:
        found.wait_for_workers(2, timeout=60)
        yield found


@pytest.fixture
def go(client, tmp_path):
    """Run three points with some work; gives their outcomes and the notes of the workers."""

    def run(work, patience_s=60.0, **more):
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "sweep.json").write_text("{}")
        planned = sweep_of({"base": "mock", "grid": RATES} | more, "mine")
        jobs = [Job(point, folder, "out") for point in planned.points]
        run_parts(client, jobs, Course(planned, folder, echo=lambda line: None), work, patience_s)
        return read_outcomes(folder), notes(folder)

    return run


@pytest.mark.wide
def test_what_times_runs_alone_and_on_one_worker_and_the_rest_fans_out(go):
    outcomes, noted = go(note)
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(NAMES, "done")
    assert Counter(entry["part"] for entry in noted) == {"begin": 3, "solve": 3, "finish": 3}
    timed = [entry for entry in noted if entry["part"] != "solve"]
    assert len({entry["pid"] for entry in timed}) == 1
    for entry in timed:
        others = [other for other in noted if other is not entry]
        assert all(other["to"] <= entry["from"] or other["from"] >= entry["to"] for other in others)
    assert len({entry["pid"] for entry in noted if entry["part"] == "solve"}) == 2
    assert {entry["begun_on"] for entry in noted if entry["part"] == "finish"} == {"here"}


@pytest.mark.wide
def test_a_worker_that_dies_costs_its_point_a_retry_and_nothing_else(go, tmp_path):
    outcomes, noted = go(die_once)
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(NAMES, "done")
    assert set(Counter((entry["point"], entry["part"]) for entry in noted).values()) == {1}
    died = json.loads((tmp_path / "mine" / "died").read_text())
    again = next(entry for entry in noted if entry["point"] == died["point"] and entry["part"] == "solve")
    assert again["pid"] != died["pid"]


@pytest.mark.wide
def test_points_go_in_rounds_so_that_some_are_finished_early_and_carry_their_machine(go, monkeypatch):
    monkeypatch.setattr(module, "ROUND", 1)  # two points a round, with two workers
    outcomes, noted = go(note)
    parts = [entry["part"] for entry in sorted(noted, key=lambda entry: entry["from"])]
    assert parts == ["begin"] * 2 + ["solve"] * 2 + ["finish"] * 2 + ["begin", "solve", "finish"]
    assert {outcome.where.machine for outcome in outcomes.values()} == {"a CPU, 2 cores, machine here"}


@pytest.mark.slow
def test_what_waits_for_a_worker_that_is_gone_for_good_has_failed_and_says_so(go):
    outcomes, _ = go(die_timing, patience_s=2.0)
    assert {outcome.status for outcome in outcomes.values()} == {"failed"}
    assert {outcome.reason for outcome in outcomes.values()} == {
        "no worker with the resource 'timing' is left to run its part 'begin'"
    }


@pytest.mark.slow
def test_what_breaks_the_work_itself_is_the_points_failure(go):
    outcomes, _ = go(fail)
    assert [outcome.status for outcome in outcomes.values()] == ["failed"] * 3
    assert outcomes[NAMES[0]].reason == "ZeroDivisionError: division by zero"


TINY = {
    "workload": {"rows": 256, "events": 2000, "burst": 20},
    "solver": {"refine_steps": 10},
    "calibration": {"pilots": 0},
    "measure": {"repeats": 3, "max_repeats": 3, "warmup": 0, "bootstrap": 100},
    "codesign": {"max_rounds": 1},
}


@pytest.mark.slow
@pytest.mark.notebooks
def test_a_real_sweep_on_two_local_workers(tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    grid = {"transform.dead_share": [0.3]}
    planned = sweep_of({"base": "mock", "grid": grid, "overrides": TINY}, "tiny")
    said = []
    result = run_sweep(planned, tmp_path / "out", cluster="local", echo=said.append)
    assert result.count("done") == 1, said
    assert all(this_machine() not in row.where.machine for row in result.rows), "as where no worker ran it"
    assert (tmp_path / "out" / "tiny" / "index.html").is_file()
