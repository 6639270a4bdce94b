"""The real mock scenario at its smallest, killed at a chosen moment; and what must hold of its folder at any moment."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import psutil

from icd_lib.paths import project_root

# No figure of the clock may decide anything, so that two runs must agree: no pilots, and a round whose fall of J never
# suffices. Everything else is computed and measured as always.
SMALL = [
    "workload.rows=512",
    "workload.events=2000",
    "workload.burst=50",
    "solver.refine_steps=5",
    "calibration.pilots=0",
    "codesign.max_rounds=1",
    "codesign.epsilon_j=1000",
    "measure.repeats=3",
    "measure.max_repeats=3",
    "measure.warmup=1",
    "measure.bootstrap=100",
]
LEFTOVER = re.compile(r"\.lock|\.[^/]+\.\d+\.tmp|\.[^/]+\.running\.ipynb")
DETERMINISTIC = ("config.lock.json", "setup/events.npz", "graph/axes.json", "graph/w.meta.json", "graph/W.rows.npz")
DETERMINISTIC += tuple(
    f"{mode}/{name}"
    for mode in ("linear", "oneshot", "iterative")
    for name in ("W.rows.npz", "perm_before.json", "perm_after.json", "transform_meta.json")
)


def command(out: Path, *args: str) -> list[str]:
    words = [word for override in SMALL for word in ("--override", override)]
    script = project_root() / "run_all.py"
    return [sys.executable, str(script), "--scenario", "mock", "--quick", "--out", str(out), *words, *args]


def start(out: Path, *args: str) -> subprocess.Popen:
    """The command line in a process group of its own; what it prints goes to a file beside the run."""
    environment = os.environ | {"ICD_CACHE_DIR": str(out / "cache"), "OMP_NUM_THREADS": "1"}
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "printed.txt", "w") as printed:
        return subprocess.Popen(
            command(out, *args), stdout=printed, stderr=printed, env=environment, start_new_session=True
        )


def finish(out: Path, *args: str) -> float:
    """Run to the end; returns the seconds it took."""
    began = time.monotonic()
    process = start(out, *args)
    assert process.wait(timeout=300) == 0, (out / "printed.txt").read_text()
    return time.monotonic() - began


def kill_after(out: Path, seconds: float, *args: str, said: str = "") -> bool:
    """SIGKILL to the whole group so many seconds after it `said` that; False if the run had ended by then.

    The kernel must die with it.
    """
    process = start(out, *args)
    while said not in (out / "printed.txt").read_text() and process.poll() is None:
        time.sleep(0.02)
    try:
        assert process.wait(timeout=seconds) == 0, (out / "printed.txt").read_text()
        return False
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wait_until_gone(children)
    return True


def wait_until_gone(processes: list[psutil.Process], seconds: float = 10) -> None:
    """Wait for processes that are not ours to wait for; fails if one lives on."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if is_alive(process)]:
        assert time.monotonic() < deadline, f"{[process.cmdline() for process in alive]} outlived the run"
        time.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_whole(run: Path, *, ended: bool = False) -> None:
    """Every file can be read to its end, what is recorded is there, and nothing unknown lies about."""
    for path in run.rglob("*"):
        if path.is_file() and path.name.startswith("."):
            assert LEFTOVER.fullmatch(path.name), path
            assert not ended or path.name == ".lock", f"{path} is left over"
        elif path.is_file():
            READERS.get(path.suffix, unknown)(path, ended)
    if not (run / "stages.json").exists():
        return
    stages = json.loads((run / "stages.json").read_text())["stages"]
    for name, record in stages.items():
        assert not ended or record["status"] == "done", (name, record)
        if record["status"] == "done":
            notebook = f"{name.partition('[')[0]}.ipynb"
            assert any(rel.endswith(notebook) for rel in record["outputs"]), name
            for rel, sha in record["outputs"].items():
                assert hashlib.sha256((run / rel).read_bytes()).hexdigest() == sha, (name, rel)


def unknown(path: Path, ended: bool) -> None:
    raise AssertionError(f"{path} is a file that no stage should write")


def read_npz(path: Path, ended: bool) -> None:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path, allow_pickle=False) as kept:
        assert all(kept[name].size for name in kept.files), path


def read_log(path: Path, ended: bool) -> None:
    *lines, last = path.read_text().split("\n")
    assert not ended or last == ""  # a run that is killed may be in the middle of a line
    for line in lines:
        assert set(json.loads(line)) == {"ts", "stage", "ok", "meta"}, line


def read_page(path: Path, ended: bool) -> None:
    text = path.read_text()
    assert text.startswith("<!") and text.rstrip().endswith("</html>"), path


READERS = {
    ".json": lambda path, ended: json.loads(path.read_text()),
    ".ipynb": lambda path, ended: nbformat.validate(nbformat.read(path, 4)),
    ".npz": read_npz,
    ".log": read_log,
    ".html": read_page,
    ".csv": lambda path, ended: path.read_text().index("\n"),
    ".png": lambda path, ended: path.read_bytes().index(b"IEND"),
    ".txt": lambda path, ended: path.read_text().rindex("# files\n"),
}


def results(run: Path, modes=("linear", "oneshot", "iterative"), measured: bool = True) -> dict:
    """What must not depend on whether a run was killed: layouts, graphs, masks, costs, checksums, simulated caches."""

    def read(rel):
        return json.loads((run / rel).read_text())

    found = {
        rel: hashlib.sha256((run / rel).read_bytes()).hexdigest()
        for rel in DETERMINISTIC
        if "/" not in rel or rel.startswith(("setup/", "graph/", *modes))
    }
    found["configuration"] = read("config.lock.json")["sha256"]
    for mode in modes:
        solve = read(f"{mode}/solve.json")
        found[mode] = [solve[key] for key in ("widths", "sizes", "objective", "cost", "certificates")]
        found[mode] += [[attempt.get("objective"), attempt["accepted"]] for attempt in solve["attempts"]]
    if measured:
        report = read("measure/measure.json")
        found["measured"] = [report[key] for key in ("checksums", "equality", "caches")]
        found["verdict"] = [read("verdict.json")[key] for key in ("cost", "determinism")]
    return found
