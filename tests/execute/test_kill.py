"""A run that is killed, starved, hung or locked out leaves whole files, and goes on to the same result."""

import ctypes
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import killed_run
import psutil
import pytest
from command_line import command
from killed_run import check_whole, finish, kill_after, results, wait_until_gone
from notebook_factory import write_project
from tiny_pipeline import Pipeline

from icd_lib.errors import ArtifactError
from icd_lib.execute.pipeline import plan_stages
from icd_lib.paths import project_root
from icd_lib.run import artifacts
from icd_lib.run.artifacts import mend_log, open_run, sweep_leftovers
from icd_lib.run.records import Records, snapshot

SHORT = ("--mode", "linear", "--no-measure")
KILLS_PER_CASE = 5
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its results and its duration."""
    out = tmp_path_factory.mktemp("whole")
    finish(out)  # what is compiled once is compiled now
    seconds = finish(out, "--force")
    check_whole(out / "mock", ended=True)
    return results(out / "mock"), seconds


def kill_and_resume(folder: Path, moments, args=(), said=("", "", "")) -> int:
    """Kill after each of `moments` seconds, then let it end; returns how often it really was killed."""
    kills = 0
    for seconds, words in zip(moments, said, strict=False):
        again = ["--resume"] if (folder / "mock" / "config.lock.json").exists() else []
        if not kill_after(folder, seconds, *args, *again, said=words):
            break
        kills += 1
        check_whole(folder / "mock")
    finish(folder, *args, "--resume")
    check_whole(folder / "mock", ended=True)
    return kills


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.notebooks
def test_a_run_killed_at_any_moment_can_be_resumed_to_the_same_result(whole, tmp_path, seed):
    expected, duration = whole
    chance, kills, tried = random.Random(seed), 0, 0
    while kills < KILLS_PER_CASE:
        # Of three runs two are killed once and one is killed again while it is being resumed.
        wanted = min(1 + (tried % 3 == 2), KILLS_PER_CASE - kills)
        moments = [chance.uniform(0, duration), chance.uniform(0, duration / 2)][:wanted]
        folder = tmp_path / str(tried)
        kills += kill_and_resume(folder, moments)
        assert results(folder / "mock") == expected, moments
        tried += 1
    assert kills == KILLS_PER_CASE


@pytest.mark.notebooks
def test_a_short_run_killed_in_each_of_its_stages_ends_as_one_that_was_not(tmp_path):
    finish(tmp_path / "whole", *SHORT)
    expected = results(tmp_path / "whole" / "mock", ["linear"], measured=False)
    chance, kills, tried = random.Random(0), 0, 0
    moments = [chance.uniform(0, 1.5) for _ in range(3)]
    while kills < 3 and tried < 8:
        folder = tmp_path / str(tried)
        kills = kill_and_resume(folder, moments, SHORT, ["[1/3]", "[2/3]", "[3/3]"])
        assert results(folder / "mock", ["linear"], measured=False) == expected
        moments[kills:] = [moment / 2 for moment in moments[kills:]]  # it had ended by then
        tried += 1
    assert kills == 3


WAIT = 'print("working", os.getpid(), flush=True)\nthreading.Event().wait(600)'


def start_waiting(tmp_path, out, *more, body=WAIT):
    """A run whose second stage waits, and the process of its kernel."""
    notebooks = write_project(tmp_path / "notebooks", build_graph="import os, threading\n" + body)
    args = ["--quick", "--no-measure", "--mode", "linear", "--out", out, *more]
    process = subprocess.Popen(
        command(notebooks, *args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=project_root()
    )
    for line in process.stdout:
        if "working" in line:
            return notebooks, args, process, psutil.Process(int(line.split()[-1]))
    raise AssertionError(process.stderr.read())


def run(notebooks, *args, first="", **options) -> subprocess.CompletedProcess:
    words = command(notebooks, *args, first=first)
    return subprocess.run(words, capture_output=True, text=True, cwd=project_root(), **options)


@pytest.mark.notebooks
def test_a_second_run_is_refused_and_changes_nothing_and_the_lock_dies_with_its_owner(tmp_path):
    notebooks, args, owner, kernel = start_waiting(tmp_path, tmp_path / "out")
    folder = tmp_path / "out" / "bert"
    try:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for other in ([], ["--seed", "7"], ["--force"]):
            refused = run(notebooks, *args, *other)
            assert refused.returncode == 3 and "another run is writing" in refused.stderr, refused.stderr
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    finally:
        owner.kill()  # the owner alone: nobody tells its kernel
        owner.communicate()
    wait_until_gone([kernel], seconds=5)
    assert [path.name for path in folder.rglob(".*") if path.name != ".lock"]
    write_project(notebooks)
    again = run(notebooks, *args, "--resume")
    assert again.returncode == 0 and "01_build_graph  (running last time)" in again.stdout, again.stderr
    assert [path.name for path in folder.rglob(".*")] == [".lock"]
    cleaned = [json.loads(line) for line in (folder / "run.log").read_text().splitlines()]
    assert [line["meta"]["files"] for line in cleaned if line["stage"] == "run"] == [1]


# A limit that a loaded machine cannot reach in any other stage, nor when the run is resumed.
SHORT_LIMIT = """
from icd_lib.execute import pipeline

whole = pipeline.execute


def execute(source, *given, timeout_s, **named):
    assert timeout_s == 300, timeout_s
    whole(source, *given, timeout_s=4 if source.stem == "01_build_graph" else timeout_s, **named)


pipeline.execute = execute
"""


@pytest.mark.parametrize(
    ("body", "first", "says"),
    [
        (
            "import signal\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\n" + WAIT,
            SHORT_LIMIT,
            "took longer than 4 s",
        ),
        pytest.param("os.kill(os.getpid(), 9)", "", "died", marks=SLOW),
    ],
)
@pytest.mark.notebooks
def test_a_hung_or_dead_kernel_ends_the_run_with_its_files_whole(tmp_path, body, first, says):
    notebooks = write_project(tmp_path / "notebooks", build_graph="import os, threading\n" + body)
    args = ["--no-measure", "--mode", "linear", "--out", tmp_path / "out", "--override", "stage_timeout_s=300"]
    began = time.monotonic()
    ended = run(notebooks, *args, first=first)
    assert ended.returncode == 3 and says in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
    assert time.monotonic() - began < 300, "it waited for the kernel, or for the limit of the others"
    if "working" in ended.stdout:
        kernel = int(ended.stdout.partition("working ")[2].split()[0])
        assert not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE
    folder = tmp_path / "out" / "bert"
    stages = json.loads((folder / "stages.json").read_text())["stages"]
    assert {name: record["status"] for name, record in stages.items()} == {
        "00_setup_check": "done",
        "01_build_graph": "failed",
    }
    assert [path.name for path in folder.rglob(".*")] == [".lock"]
    write_project(notebooks)
    again = run(notebooks, *args, "--resume")
    assert again.returncode == 0 and "00_setup_check  unchanged" in again.stdout, again.stderr


@pytest.mark.parametrize("room", [1_000, pytest.param(5_000, marks=SLOW), pytest.param(100_000, marks=SLOW)])
@pytest.mark.notebooks
def test_a_disk_that_fills_up_ends_the_run_with_exit_7_and_every_file_whole(tmp_path, room):
    """A limit on the size of a file stands for the disk: the lock, the records or a page is what no longer fits."""
    notebooks = write_project(tmp_path / "notebooks")
    args = ["--no-measure", "--mode", "linear", "--out", tmp_path / "out"]
    full = run(notebooks, *args, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)))
    assert full.returncode == 7 and "--out" in full.stderr and "Traceback" not in full.stderr, full.stderr
    folder = tmp_path / "out" / "bert"
    check_whole(folder)
    assert all(path.stat().st_size <= room for path in folder.rglob("*"))
    assert run(notebooks, *args, "--resume").returncode == 0
    check_whole(folder, ended=True)


def obey_permissions():
    """Take from root, for good, what lets it pass by permissions (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            if ctypes.CDLL(None, use_errno=True).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                raise OSError(ctypes.get_errno(), "cannot drop a capability")


def can_obey(folder: Path) -> bool:
    folder.mkdir()
    folder.chmod(0o555)
    code = f"import os; os.mkdir({str(folder / 'x')!r})"
    try:
        done = subprocess.run([sys.executable, "-c", code], preexec_fn=obey_permissions, capture_output=True, text=True)
    except subprocess.SubprocessError:
        return False
    return "PermissionError" in done.stderr


@pytest.mark.parametrize(
    ("place", "mode"),
    [
        ("out", 0o555),
        pytest.param("out/bert", 0o555, marks=SLOW),
        pytest.param("out/bert/setup", 0o555, marks=SLOW),
        ("out/bert/stages.json", 0),
    ],
)
@pytest.mark.notebooks
def test_folders_and_files_without_permission_end_the_run_with_exit_7_and_the_cure(tmp_path, place, mode):
    if not can_obey(tmp_path / "probe"):
        pytest.skip("this system does not let root give up its way around permissions")
    notebooks, args = write_project(tmp_path / "notebooks"), ["--no-measure", "--out", tmp_path / "out"]
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}") if path.suffix else path.mkdir()
    path.chmod(mode)
    denied = run(notebooks, *args, preexec_fn=obey_permissions)
    assert denied.returncode == 7 and "ermission denied" in denied.stderr, denied.stderr
    assert "Traceback" not in denied.stderr
    path.chmod(0o755)
    if path.suffix:
        path.unlink()
    assert run(notebooks, *args, "--resume", preexec_fn=obey_permissions).returncode == 0


@pytest.mark.notebooks
def test_a_clock_that_runs_backwards_breaks_neither_a_run_nor_its_resumption(tmp_path, monkeypatch):
    now = datetime(2031, 5, 1, tzinfo=UTC)

    class Backwards(datetime):
        @classmethod
        def now(cls, tz=None):
            nonlocal now
            now -= timedelta(hours=1)
            return now

    began = time.time()
    monkeypatch.setattr(artifacts, "datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: began - 3600 * (time.monotonic() % 1000))
    pipeline = Pipeline(tmp_path)
    pipeline.go(measure=False)
    names = [stage.name for stage in plan_stages("linear", measure=False)]
    assert pipeline.ran() == names
    stamps = [line["ts"] for line in pipeline.log()]
    assert stamps == sorted(stamps, reverse=True) and [line["stage"] for line in pipeline.log()] == names
    assert all(0 < record["elapsed_s"] < 600 for record in pipeline.records().values())
    for year, path in enumerate(sorted(pipeline.dir.rglob("*.*"))):
        stamp = datetime(1971 + 9 * (year % 9), 1, 1, tzinfo=UTC).timestamp()
        os.utime(path, (stamp, stamp))
    pipeline.go(resume=True, measure=False)
    assert pipeline.ran() == []


LEFTOVERS = [".verdict.json.123.tmp", "linear/.02_solve.running.ipynb", "linear/.model.0a1b2c3d.partial/weights"]
LEFTOVERS += [".model.0a1b2c3d.old/x", "setup/suite.safetensors.partial"]
KEPT = [".lock", ".gitignore", "notes.tmp", "linear/.hidden", "verdict.json.123.tmp", ".notes.partial"]


def test_leftovers_go_and_everything_else_stays(tmp_path):
    for rel in (*LEFTOVERS, *KEPT):
        (tmp_path / rel).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / rel).write_text("x")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / ".x.1.tmp").write_text("somebody else's")
    (tmp_path / "link").symlink_to(outside)
    assert sweep_leftovers(tmp_path) == len(LEFTOVERS)
    assert not any((tmp_path / rel).exists() for rel in LEFTOVERS) and all((tmp_path / rel).exists() for rel in KEPT)
    assert (outside / ".x.1.tmp").exists()


@pytest.mark.parametrize(
    ("text", "left"),
    [(b"", b""), (b"1\n2\n", b"1\n2\n"), (b'1\n{"ts', b"1\n"), (b"{", b""), (b"1\n\xc3", b"1\n")],
)
def test_a_log_line_that_was_cut_off_is_removed_before_the_next_one(tmp_path, text, left):
    path = tmp_path / "run.log"
    path.write_bytes(text)
    assert mend_log(path) == len(text) - len(left) and path.read_bytes() == left
    assert mend_log(tmp_path / "none.log") == 0


def test_what_a_killed_stage_wrote_is_not_taken_for_another_configurations(tmp_path):
    records = Records(open_run("bert", out=tmp_path))
    folder = records.run.dir
    records.run.write_json("graph/w.meta.json", {})
    (folder / "notes.txt").write_text("a person's own")
    records.start("02_solve[iterative]")
    records.run.write_json("iterative/solve.json", {"killed": True})  # and here it is killed
    (folder / "mine.txt").write_text("written by a person meanwhile")
    before = snapshot(folder)
    again = Records.load(open_run("bert", ["seed=3"], out=tmp_path))
    assert again.forget("02_solve[iterative]") == 1
    assert before.keys() - snapshot(folder).keys() == {"iterative/solve.json"}


def test_what_a_killed_stage_did_to_another_stages_file_is_found_by_its_hash(tmp_path):
    notebook = write_project(tmp_path / "n") / "01_build_graph.ipynb"
    records = Records(open_run("bert", out=tmp_path))
    before = snapshot(records.run.dir)
    records.run.write_json("graph/shared.json", {})
    records.finish("01_build_graph", "done", 1.0, before, (), notebook)
    records.start("02_solve[linear]")
    records.run.write_json("graph/shared.json", {"more": 1})
    assert records.forget("02_solve[linear]") == 0 and (records.run.dir / "graph" / "shared.json").exists()
    assert records.why_stale("01_build_graph", (), notebook) == "graph/shared.json was changed"


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_replacing_a_saved_model_never_loses_both(tmp_path, monkeypatch, moment):
    torch = pytest.importorskip("torch")
    from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
    from tests.tiny_encoders import tiny_bert

    folder = tmp_path / "model"
    first, second = tiny_bert(), tiny_bert()
    with torch.no_grad():
        next(second.parameters()).add_(1)
    save_optimized(first, None, folder)
    calls, rename = [], Path.rename

    def failing(self, target):
        calls.append(self)
        if {"before": 1, "between": 2}.get(moment) == len(calls):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    if moment == "after":
        save_optimized(second, None, folder)
    else:
        with pytest.raises(ArtifactError, match="cannot write"):
            save_optimized(second, None, folder)
    expected = second if moment == "after" else first
    loaded = load_optimized(folder).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_kernel_whose_parent_is_gone_already_does_not_start():
    code = "from icd_lib.execute.kernel import die_with_parent; die_with_parent(1 << 30); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project_root())
    assert (done.returncode, done.stdout) == ((1, "") if sys.platform == "linux" else (0, "alive\n"))


def test_the_signal_of_a_dead_parent_reaches_a_process_that_heeds_no_other():
    if sys.platform != "linux":
        pytest.skip("only Linux tells a process that its parent has died")
    child = (
        "import os, signal, time; from icd_lib.execute.kernel import die_with_parent; die_with_parent(os.getppid()); "
        "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)]; print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=project_root())
    orphan = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until_gone([orphan], seconds=5)


def test_the_check_of_a_folder_notices_what_is_not_whole(tmp_path):
    """Else every kill would pass."""
    good = {"a.json": "{}", "run.log": '{"ts": 1, "stage": 1, "ok": 1, "meta": 1}\n', "p.html": "<!doctype></html>"}
    for rel, text in good.items():
        (tmp_path / rel).write_text(text)
    check_whole(tmp_path, ended=True)
    for rel, text in [("a.json", "{"), ("run.log", "{}\n"), ("p.html", "<!doctype>"), ("x.tmp", ""), (".x.1.tmp", "")]:
        (tmp_path / rel).write_text(text)
        with pytest.raises((AssertionError, ValueError)):
            check_whole(tmp_path, ended=True)
        (tmp_path / rel).write_text(good[rel]) if rel in good else (tmp_path / rel).unlink()
    for outputs in ({}, {"00_a.ipynb": "0"}, {"00_a.ipynb": "0", "gone": "0"}):
        record = {"stages": {"00_a": {"status": "done", "outputs": outputs}}}
        (tmp_path / "stages.json").write_text(json.dumps(record))
        with pytest.raises((AssertionError, FileNotFoundError)):
            check_whole(tmp_path)
    assert killed_run.LEFTOVER.fullmatch(".x.1.tmp")
