"""Points on workers: who is taken, who is refused by name, what times runs alone, and who dies costs a retry."""

import contextlib
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from cluster_work import die_before_the_report, die_on_its_gpu, die_once, die_timing, fail, fill_the_disk, note, notes

from icd_lib.errors import ArtifactError, ResourceError
from icd_lib.execute import cluster as module
from icd_lib.execute.cluster import (
    Crew,
    check_timing,
    check_workers,
    connected,
    describe_worker,
    local_cluster,
    run_parts,
)
from icd_lib.execute.pipeline import start_run
from icd_lib.execute.point import PARTS, TIMED, Job, this_machine
from icd_lib.execute.sweep import Course, run_sweep
from icd_lib.paths import project_root
from icd_lib.sweeps.outcome import read_outcomes
from icd_lib.sweeps.plan import sweep_of
from icd_lib.workloads.model import contexts

REFERENCE = project_root() / "outputs" / "reference"
RATES = {"transform.dead_share": [0.3, 0.5, 0.7]}
NAMES = ["dead-share-0.3", "dead-share-0.5", "dead-share-0.7"]


def described(machine="m1", **changes):
    return {"same": {"icd_lib": "1", "torch": "2.13"}, "machine": machine, "sees_folder": True} | changes


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({"a": described(same={"icd_lib": "1", "torch": "2.11"})}, "worker a has torch 2.11, this process 2.13"),
        ({"a": described(same={"icd_lib": "1"})}, "worker a has torch none"),
        ({"a": ModuleNotFoundError("No module named 'icd_lib'")}, "worker a cannot run icd_lib (ModuleNotFound"),
        ({"a": described(), "b": described(sees_folder=False)}, "worker b does not see the sweep's folder"),
    ],
)
def test_workers_that_do_not_fit_are_refused_by_name(found, says):
    with pytest.raises(ResourceError) as caught:
        check_workers(found, described())
    assert says in str(caught.value)


def test_workers_that_fit_are_taken():
    check_workers({"a": described(), "b": described("m2"), "c": described()}, described())
    check_timing(["m1", "m2"])
    with pytest.raises(ResourceError, match="2 workers with the resource 'timing' are on one machine"):
        check_timing(["m1", "m2", "m1"])


class Answers:
    """Stands for a client: workers that say of themselves what is given; timing: those with the resource."""

    def __init__(self, found, timing=("a",)):
        self.found, self.timing = found, timing

    def scheduler_info(self, n_workers):
        return {"workers": {name: {"resources": {"timing": 1} if name in self.timing else {}} for name in self.found}}

    def run(self, function, marker, workers, on_error):
        return {name: self.found[name] for name in workers}


@pytest.fixture
def crew(tmp_path, monkeypatch):
    (tmp_path / "sweep.json").write_text("{}")
    monkeypatch.setattr(module, "ASKED_EVERY_S", 0.0)
    monkeypatch.setattr(module, "describe_worker", lambda marker: described())
    course = Course(sweep_of({"base": "mock", "grid": RATES}, "mine"), tmp_path, echo=lambda line: None)
    return lambda found, **more: Crew(Answers(found, **more), course)


@pytest.mark.parametrize(
    ("found", "timing", "says"),
    [
        ({}, (), "no worker; start one with"),
        ({"a": described()}, (), "no worker has the resource 'timing'"),
        ({"a": described(), "b": described()}, ("a", "b"), "2 workers with the resource 'timing' are on one machine"),
        ({"a": described(), "b": described(same={})}, ("a",), "worker b has icd_lib none"),
    ],
)
def test_a_crew_that_cannot_do_it_is_refused(crew, found, timing, says):
    with pytest.raises(ResourceError, match=says):
        crew(found, timing=timing).muster()


def test_who_joins_later_is_checked_like_the_first_and_who_does_not_answer_is_asked_again(crew):
    found = {"a": described()}
    joining = crew(found)
    joining.muster()
    found["b"] = OSError("Timed out trying to connect")
    joining._workers()
    assert set(joining.known) == {"a"}
    found["b"] = described("m2")
    joining._workers()
    assert set(joining.known) == {"a", "b"}
    found["c"] = described(same={"icd_lib": "1", "torch": "2.11"})
    with pytest.raises(ResourceError, match=r"worker c has torch 2.11, this process 2.13"):
        joining._workers()


def test_a_worker_with_another_model_fails_its_point_and_the_right_one_goes_on(tmp_path, monkeypatch):
    point = sweep_of({"base": "bert", "grid": {"transform.rate": [0.3]}}, "mine").points[0]
    job, there = Job(point, tmp_path / "mine", "out"), []
    monkeypatch.setattr(contexts, "make_context", lambda run, progress: SimpleNamespace(checkpoint=there[0]))
    monkeypatch.setattr(Job, "run", lambda self, run, parts, **more: None)
    run, _ = start_run(job.scenario(), job.folder)
    setup = json.loads((REFERENCE / "bert" / "setup" / "setup.json").read_text())
    setup["model"]["sha256"] = "a" * 64
    run.write_json("setup/setup.json", setup)
    there[:] = [SimpleNamespace(sha256="b" * 64)]
    outcome = module.work(job, "solve", "elsewhere").outcome
    assert (outcome.status, outcome.code) == ("failed", "E_IO_501")
    assert outcome.reason.startswith("the model here has sha256 bbbbbbbbbbbb, where the run began it has aaaaaaaaaaaa")
    assert module.work(job, "solve", this_machine()).outcome is None, "where it began nothing is asked"
    there[:] = [SimpleNamespace(sha256="a" * 64)]
    assert module.work(job, "solve", "elsewhere").outcome is None


def test_a_machine_has_one_name_and_a_worker_tells_what_has_to_be_equal(tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    told = describe_worker(str(tmp_path / "sweep.json"))
    assert told["machine"] == this_machine() and len(told["machine"]) == 6 and told["sees_folder"]
    assert {"icd_lib", "icd_lib's sources", "torch", "numpy"} <= told["same"].keys()
    assert not describe_worker(str(tmp_path / "gone"))["sees_folder"]


def test_a_point_that_finishes_on_another_machine_is_run_again_there_from_the_start(tmp_path, monkeypatch):
    ran = []

    class Recorded(Job):
        def run(self, run, parts, echo=None, servers=None):
            ran.append((parts, self.force))

    point = sweep_of({"base": "mock", "grid": RATES}, "mine").points[0]
    monkeypatch.setattr(module, "with_figures", lambda job, outcome: outcome)
    job = Recorded(point, tmp_path / "mine", "out")
    assert module.work(job, "begin").outcome is None
    assert module.work(job, "measure", this_machine()).outcome is None
    assert module.work(job, "report", this_machine()).outcome.is_done
    assert module.work(job, "measure", "elsewhere").outcome.is_done
    assert ran == [(("begin",), False), (("measure",), False), (("report",), False), (PARTS, True)]


def test_a_worker_lets_go_of_its_kernels_unless_it_is_at_work(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(module, "_SERVERS", {"solve": SimpleNamespace(close=lambda: closed.append("solve"))})
    with module._AT_WORK:
        module.dismiss()
    assert closed == []
    module.dismiss()
    assert closed == ["solve"] and not module._AT_WORK.locked()


def test_a_scheduler_that_is_not_there_is_named_with_the_cure(tmp_path, monkeypatch):
    with pytest.raises(ResourceError, match="there is no scheduler file"), connected(str(tmp_path / "gone.json")):
        pass
    pytest.importorskip("distributed")
    monkeypatch.setattr(module, "CONNECT_S", 1.0)
    with pytest.raises(ResourceError, match="no scheduler answers at tcp://127.0.0.1:9"):
        with connected("tcp://127.0.0.1:9"):
            pass


@contextlib.contextmanager
def two_workers():
    """A client of a real scheduler and two real worker processes on loopback; one has the resource."""
    pytest.importorskip("distributed")
    with local_cluster(2) as file, connected(json.loads(Path(file).read_text())["address"]) as found:
        found.wait_for_workers(2, timeout=120)
        yield found


@pytest.fixture(scope="module")
def client():
    """Of workers that live on from test to test."""
    with two_workers() as found:
        yield found


@pytest.fixture
def go(client, tmp_path):
    """Run three points with some work; gives their outcomes and the notes of the workers."""
    return runner(client, tmp_path)


@pytest.fixture
def go_and_die(tmp_path):
    """As `go`, with workers of the test's own, for work that kills them."""
    with two_workers() as client:
        yield runner(client, tmp_path)


def runner(client, tmp_path):
    """What `go` gives."""

    def run(work, patience_s=60.0, lost=None, **more):
        folder = tmp_path / "mine"
        folder.mkdir()
        if lost:
            (folder / "lost.json").write_text(json.dumps(lost))
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
    assert Counter(entry["part"] for entry in noted) == dict.fromkeys(PARTS, 3)
    timed = [entry for entry in noted if entry["part"] in TIMED]
    assert len({entry["pid"] for entry in timed}) == 1
    for entry in timed:
        others = [other for other in noted if other is not entry]
        assert all(other["to"] <= entry["from"] or other["from"] >= entry["to"] for other in others)
    for part in ("solve", "report"):
        assert len({entry["pid"] for entry in noted if entry["part"] == part}) == 2
    assert {entry["begun_on"] for entry in noted if entry["part"] != "begin"} == {this_machine()}
    assert {outcome.elapsed_s for outcome in outcomes.values()} == {4321.0}, "the seconds of all four parts"


@pytest.mark.wide
def test_a_worker_that_dies_costs_its_point_a_retry_and_nothing_else(go_and_die, tmp_path):
    outcomes, noted = go_and_die(die_once)
    assert {name: outcome.status for name, outcome in outcomes.items()} == dict.fromkeys(NAMES, "done")
    assert set(Counter((entry["point"], entry["part"]) for entry in noted).values()) == {1}
    died = json.loads((tmp_path / "mine" / "died").read_text())
    again = next(entry for entry in noted if entry["point"] == died["point"] and entry["part"] == "solve")
    assert again["pid"] != died["pid"]


@pytest.mark.slow
def test_points_go_in_rounds_so_that_some_are_finished_early(go, monkeypatch):
    monkeypatch.setattr(module, "ROUND", 1)  # two points a round, with two workers
    _, noted = go(note)
    parts = [entry["part"] for entry in sorted(noted, key=lambda entry: entry["from"])]
    assert parts == [part for part in PARTS for _ in range(2)] + list(PARTS)


@pytest.mark.slow
def test_a_budget_starts_no_further_round_and_lets_what_is_begun_finish(go, monkeypatch):
    monkeypatch.setattr(module, "ROUND", 1)
    run = Crew.run

    def and_then_it_is_spent(self, jobs, part):
        left = run(self, jobs, part)
        self.course.began -= 3600
        return left

    monkeypatch.setattr(Crew, "run", and_then_it_is_spent)
    outcomes, noted = go(note, budget_minutes=10)
    assert [outcomes[name].status for name in NAMES] == ["done", "done", "not_run"]
    assert outcomes[NAMES[2]].reason == "the budget of 10 minutes was spent"
    assert NAMES[2] not in {entry["point"] for entry in noted}


@pytest.mark.slow
def test_a_point_that_loses_too_much_is_not_measured_and_a_stronger_one_neither(go, monkeypatch):
    monkeypatch.setattr(module, "ROUND", 1)
    lost = {NAMES[0]: 0.1, NAMES[1]: 3.0, NAMES[2]: 9.0}
    outcomes, noted = go(note, lost=lost, prune={"max_drop_pp": 1.0, "along": ["transform.dead_share"]})
    assert [outcomes[name].status for name in NAMES] == ["done", "pruned", "pruned"]
    assert "loses +3.000 ± 0.100 pp" in outcomes[NAMES[1]].reason and outcomes[NAMES[1]].elapsed_s == 21.0
    assert outcomes[NAMES[2]].reason == f"a stronger form of {NAMES[1]}, which lost too much"
    assert [entry["point"] for entry in noted if entry["part"] == "measure"] == [NAMES[0]]
    assert NAMES[2] not in {entry["point"] for entry in noted}


@pytest.mark.wide
def test_a_disk_that_is_full_on_a_worker_ends_the_sweep(go, tmp_path):
    with pytest.raises(ArtifactError, match=r"\[2/3\] .*the disk is full; free some space .* the same command goes on"):
        go(fill_the_disk)
    assert read_outcomes(tmp_path / "mine")[NAMES[1]].status == "failed"
    assert "measure" not in {entry["part"] for entry in notes(tmp_path / "mine")}


@pytest.mark.slow
def test_what_waits_for_a_worker_that_is_gone_for_good_has_failed_and_says_so(go_and_die):
    outcomes, _ = go_and_die(die_timing, patience_s=2.0)
    assert {outcome.status for outcome in outcomes.values()} == {"failed"}
    assert {outcome.reason for outcome in outcomes.values()} == {
        "no worker with the resource 'timing' is left to run its part 'begin'"
    }


@pytest.mark.slow
def test_what_breaks_the_work_itself_is_the_points_failure(go):
    outcomes, _ = go(fail)
    assert [outcome.status for outcome in outcomes.values()] == ["failed"] * 3
    assert outcomes[NAMES[0]].reason == "ZeroDivisionError: division by zero"


TWO_BASES = {"base": ["mock", "trace"], "grid": {"transform.dead_share": [0.3, 0.5]}}


@pytest.fixture
def on_gpus(tmp_path):
    """Run the points of two bases on two real workers, each with a GPU of its own as far as it is told."""
    pytest.importorskip("distributed")
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sweep.json").write_text("{}")
    planned = sweep_of(TWO_BASES, "mine")
    jobs = [Job(point, folder, "out") for point in planned.points]

    def run(work):
        with connected("local", 2, ("0", "GPU-b")) as client:
            run_parts(client, jobs, Course(planned, folder, echo=lambda line: None), work)
        return read_outcomes(folder), notes(folder)

    return run


def by_base(noted) -> dict[str, set]:
    """Base → the GPUs that its parts ran on."""
    found: dict[str, set] = {}
    for entry in noted:
        base = "mock" if "mock" in entry["point"] else "trace"
        found.setdefault(base, set()).add(entry["device"])
    return found


@pytest.mark.wide
def test_every_gpu_has_a_worker_and_what_is_compared_stays_on_one(on_gpus):
    outcomes, noted = on_gpus(note)
    assert {outcome.status for outcome in outcomes.values()} == {"done"} and len(outcomes) == 4
    devices = by_base(noted)
    assert sorted(len(found) for found in devices.values()) == [1, 1]
    assert set.union(*devices.values()) == {"0", "GPU-b"}, "a worker sees its own GPU alone"
    machines = {entry["device"]: entry["machine"] for entry in noted}
    assert len(set(machines.values())) == 2 and this_machine() not in machines.values()
    assert all(entry["begun_on"] == entry["machine"] for entry in noted if entry["part"] != "begin")
    for device in machines:
        own = sorted((entry["from"], entry["to"]) for entry in noted if entry["device"] == device)
        assert all(before[1] <= after[0] for before, after in zip(own, own[1:], strict=False))


@pytest.mark.slow
def test_the_points_of_a_gpu_whose_worker_died_go_to_another(on_gpus, tmp_path):
    outcomes, noted = on_gpus(die_on_its_gpu)
    assert {outcome.status for outcome in outcomes.values()} == {"done"} and len(outcomes) == 4
    died = json.loads((tmp_path / "mine" / "died").read_text())
    again = [
        entry for entry in noted if entry["point"] == died["point"] and entry["part"] in ("solve", "measure", "report")
    ]
    assert {entry["device"] for entry in again} == {"0"}


@pytest.mark.slow
def test_a_point_whose_machine_is_gone_before_its_report_is_measured_again_on_another(on_gpus, tmp_path):
    outcomes, noted = on_gpus(die_before_the_report)
    assert {outcome.status for outcome in outcomes.values()} == {"done"} and len(outcomes) == 4
    died = json.loads((tmp_path / "mine" / "died").read_text())
    of_it = [entry for entry in noted if entry["point"] == died["point"]]
    assert [entry["part"] for entry in of_it].count("measure") == 2
    assert of_it[-1]["pid"] != died["pid"] == of_it[0]["pid"]


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
    grid = {"transform.dead_share": [0.3, 0.5]}
    planned = sweep_of({"base": "mock", "grid": grid, "overrides": TINY}, "tiny")
    said = []
    result = run_sweep(planned, tmp_path / "out", cluster="local", echo=said.append)
    assert result.count("done") == 2, said
    assert {row.where.host for row in result.rows} == {this_machine()}
    assert (tmp_path / "out" / "tiny" / "index.html").is_file()
