"""The run directory: nothing half-written, errors with a cure, scrubbed text, a manifest that matches the files."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.paths import project_root
from icd_lib.run import manifest
from icd_lib.run.artifacts import open_run, run_folder
from icd_lib.run.scenario import load_scenario
from icd_lib.scrub.text import scrub_strings, scrub_text
from icd_lib.storage import atomic
from icd_lib.storage.atomic import atomic_write, sha256_file


@pytest.fixture
def run(tmp_path):
    return open_run("bert", ["seed=5"], out=tmp_path)


def test_open_run_writes_the_lock_once_and_updates_it_when_the_configuration_changes(tmp_path):
    run = open_run("bert", ["measure.repeats=9"], out=tmp_path, quick=True, seed=3)
    lock = run.read_json("config.lock.json")
    assert run.dir == tmp_path / "bert"
    assert (lock["quick"], lock["sha256"]) == (True, run.scenario.sha256)
    assert (lock["config"]["measure"]["repeats"], lock["config"]["seed"]) == (9, 3)
    before = (run.dir / "config.lock.json").stat().st_mtime_ns
    open_run("bert", ["measure.repeats=9"], out=tmp_path, quick=True, seed=3, mode="linear")
    assert (run.dir / "config.lock.json").stat().st_mtime_ns == before
    assert open_run("bert", out=tmp_path).read_json("config.lock.json")["quick"] is False


def test_relative_out_counts_from_the_project_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run_folder(load_scenario("bert"), "outputs") == project_root() / "outputs" / "bert"
    assert run_folder(load_scenario("bert"), tmp_path / "x") == tmp_path / "x" / "bert"


def test_the_command_of_a_run_makes_the_same_run_again(tmp_path):
    import shlex

    import run_all

    run = open_run("bert", ["model.checkpoint=my model"], out=tmp_path / "a b", quick=True, seed=2)
    args = run_all.build_parser().parse_args(shlex.split(run.command())[2:])
    again = load_scenario(args.scenario, args.override, quick=args.quick, seed=args.seed)
    assert (again.sha256, run_folder(again, args.out)) == (run.scenario.sha256, run.dir)


def test_json_round_trip_takes_numpy_and_refuses_nan(run):
    run.write_json("a/b.json", {"n": np.int64(3), "x": np.float32(0.5), "v": np.arange(3), "t": "é"})
    assert run.read_json("a/b.json") == {"n": 3, "x": 0.5, "v": [0, 1, 2], "t": "é"}
    with pytest.raises(ArtifactError, match="JSON cannot express"):
        run.write_json("a/b.json", {"n": float("nan")})
    assert run.read_json("a/b.json")["n"] == 3
    with pytest.raises(TypeError, match="set"):
        run.write_json("a/b.json", {"n": {1}})


@pytest.mark.parametrize("text", ["", '{"a": 1', "nonsense", '{"a": "\xff'])
def test_truncated_json_is_an_artifact_error_that_names_the_file_and_the_cure(run, text):
    run.path("setup", "setup.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"setup\.json is truncated.*--force"):
        run.read_json("setup/setup.json")


def test_missing_json_says_how_to_make_it(run):
    with pytest.raises(ArtifactError, match=r"missing.*run_all\.py --scenario bert --override seed=5 .*--resume"):
        run.read_json("graph/w.meta.json")


def test_mode_is_checked(run):
    with pytest.raises(ConfigError, match="linear, oneshot, iterative or both; got 'fast'"):
        open_run("bert", out=run.dir, mode="fast")


def test_atomic_write_replaces_wholly(tmp_path):
    path = atomic_write(tmp_path / "x" / "f.bin", b"old")
    assert atomic_write(path, "né") == path and path.read_bytes() == "né".encode()
    assert os.listdir(path.parent) == ["f.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, number, call):
    path = atomic_write(tmp_path / "f.json", b"old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, call, fail)
    with pytest.raises(ArtifactError, match=r"f\.json.*--out"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["f.json"]


def test_a_write_the_system_refuses_half_way_leaves_nothing(tmp_path):
    code = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from icd_lib.storage.atomic import atomic_write
atomic_write({str(tmp_path / "big.bin")!r}, b"x" * 100_000)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] != 4096 and signal.SIGXFSZ
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project_root())
    assert "ArtifactError" in done.stderr and os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_while_logging_is_an_artifact_error(run):
    (run.dir / "run.log").symlink_to("/dev/full")
    with pytest.raises(ArtifactError, match="disk is full"):
        run.log("00_setup_check")


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/none"])
def test_unwritable_out_is_an_artifact_error_with_the_cure(tmp_path, out):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="--out"):
        open_run("bert", out=tmp_path / out)


def test_log_lines_are_json_and_scrubbed(run):
    run.log("01_build_graph", elapsed_s=np.float64(1.5))
    run.log("02_solve[linear]", ok=False, error=f"no file {project_root()}/secret/x")
    lines = [json.loads(line) for line in (run.dir / "run.log").read_text().splitlines()]
    assert [(line["stage"], line["ok"]) for line in lines] == [("01_build_graph", True), ("02_solve[linear]", False)]
    assert lines[0]["meta"] == {"elapsed_s": 1.5} and lines[1]["meta"]["error"] == "no file <project>/secret/x"
    assert all("ts" in line for line in lines)


def test_scrub_removes_this_machines_names(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "gethostname", lambda: "build-box-7.example.org")
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("ICD_DATA_DIR", "/mnt/models-of-mine")
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("LOGNAME", "somebody")
    root = str(project_root())
    assert scrub_text(f"{root}/outputs and {root}2/x") != f"{root}/outputs and {root}2/x"
    assert scrub_text(f'"{root}/outputs"') == '"<project>/outputs"'
    assert scrub_text(f"<p>{root}/x</p>") == "<p><project>/x</p>"
    assert scrub_text(f"\x1b[0;32m{root}/a.py\x1b[0m") == "\x1b[0;32m<project>/a.py\x1b[0m"
    assert scrub_text("/home/somebody/x, /home/other/y, /Users/other/z") == "<home>/x, <home>/y, <home>/z"
    assert scrub_text("/mnt/models-of-mine/bert") == "<data>/bert"
    assert scrub_text("on build-box-7.example.org or build-box-7") == "on <host> or <host>"
    assert scrub_text("somebody@build-box-7: somebody likes it") == "<user>@<host>: somebody likes it"


@pytest.mark.parametrize(
    "text",
    [
        "tokens/s and/or 1/2, see /proc/cpuinfo and /usr/lib",
        ":root { color: red } </div> https://example.org/tmp/x ~/x",
        "outputs/bert/index.html ./parameters/bert.yaml",
        "<project>/tmp/x",
    ],
)
def test_scrub_leaves_other_text_alone(text):
    assert scrub_text(text) == text


def test_scrub_twice_is_scrub_once_and_images_are_kept(monkeypatch):
    import socket

    monkeypatch.setattr(socket, "gethostname", lambda: "vmx")
    monkeypatch.chdir("/")  # another cache key than that of the other tests
    image = "data:image/png;base64,AAAA/vmx+BBBB/vmx=="
    text = f'<img src="{image}"> on vmx at {project_root()}/x'
    once = scrub_text(text)
    assert image in once and once.endswith("on <host> at <project>/x") and scrub_text(once) == once
    output = {"data": {"image/png": "AA/vmx+", "text/plain": "vmx"}, "n": [1, None, "vmx"]}
    assert scrub_strings(output) == {
        "data": {"image/png": "AA/vmx+", "text/plain": "<host>"},
        "n": [1, None, "<host>"],
    }


def test_manifest_lists_every_file_with_its_hash(run, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(project_root() / "cache"))
    setup = {"model": {"name": "m", "sha256": "0"}, "data": {"name": "d"}, "badges": [], "environment": {}}
    run.write_json("setup/setup.json", setup)
    run.path("linear", "W.ffn.npz").write_bytes(b"123")
    run.path("linear", ".W.tmp").write_bytes(b"1")
    written = json.loads(manifest.write_manifest(run).read_text())
    assert set(written["files"]) == {"config.lock.json", "setup/setup.json", "linear/W.ffn.npz"}
    assert written["files"]["linear/W.ffn.npz"] == sha256_file(run.dir / "linear" / "W.ffn.npz")
    assert written["provenance"] == {"model": {"name": "m", "sha256": "0"}, "data": {"name": "d"}}
    assert written["config_sha256"] == run.scenario.sha256 and written["packages"]["numpy"] == np.__version__
    assert str(project_root()) not in json.dumps(written) and written["environment"]["HF_HOME"]


def test_git_state_is_none_with_a_reason_outside_a_checkout(tmp_path):
    state = manifest.git_state(tmp_path)
    assert state["head"] is None and state["reason"]


def test_sha256_of_known_bytes_and_of_a_missing_file(tmp_path):
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(atomic_write(tmp_path / "abc", "abc")) == known
    with pytest.raises(ArtifactError, match="none"):
        sha256_file(tmp_path / "none")
