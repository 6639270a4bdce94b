"""The command line: what it prints, what it refuses, its exit codes, and Ctrl-C in the middle."""

import json
import os
import re
import signal
import subprocess
import sys

import nbformat
import psutil
import pytest
from command_line import command
from notebook_factory import verdict_body, write_project

import run_all
from icd_lib.errors import IcdError
from icd_lib.execute import command_line
from icd_lib.paths import project_root

pytestmark = pytest.mark.wide


def test_list_names_the_scenarios_without_loading_anything_heavy():
    code = "import sys, run_all; run_all.main(['--list']); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project_root(), check=True)
    assert re.search(r"^bert +\w", done.stdout, re.MULTILINE) and done.stdout.endswith("False False\n")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--scenario", "bret"], "did you mean 'bert'"),
        (["--scenario", "no/such.yaml"], "no scenario file"),
        (["--override", "measure.repeat=3"], "did you mean 'measure.repeats'"),
        (["--override", "measure.repeats"], "key.path=value"),
        (["--override", "measure.repeats=many"], "takes an integer"),
        (["--override", "codesign.quality_budget_pp=-1"], "out of range"),
        (["--seed", "-1"], "out of range"),
        (["--reuse-perm", "no/such"], "no/such"),
    ],
)
def test_configuration_errors_exit_2_and_write_nothing(tmp_path, capsys, args, says):
    assert run_all.main([*args, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert says in err and "E_CFG_001" in err and "Traceback" not in err and out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["- a\n- b", "seed: !!python/object/apply:os.getpid []", "seed: 1\nseed: 2"])
def test_bad_scenario_files_exit_2(tmp_path, capsys, text):
    (tmp_path / "mine.yaml").write_text(text)
    assert run_all.main(["--scenario", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "mine.yaml" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("args", [["--mode", "fast"], ["--resume", "--force"], ["--seed", "x"], ["--unknown"]])
def test_usage_errors_exit_2(args):
    with pytest.raises(SystemExit) as caught:
        run_all.main(args)
    assert caught.value.code == 2


def test_unwritable_out_exits_7(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run_all.main(["--out", str(tmp_path / "file")]) == 7
    assert "--out" in capsys.readouterr().err


def test_dry_run_shows_the_plan_and_writes_nothing(tmp_path, capsys):
    notebooks = write_project(tmp_path / "notebooks")
    args = ["--dry-run", "--quick", "--mode", "iterative", "--no-measure", "--out", str(tmp_path / "out")]
    assert run_all.main(args, notebooks) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^  (\S+)", out, re.MULTILINE) == [
        "00_setup_check",
        "01_build_graph",
        "02_solve[oneshot]",
        "02_solve[iterative]",
    ]
    assert "not run yet" in out and not (tmp_path / "out").exists()


@pytest.mark.notebooks
def test_a_whole_run_a_gate_that_fails_and_a_dry_run_after_it(tmp_path, capsys):
    notebooks = write_project(tmp_path / "notebooks", validate=verdict_body("fail"))
    args = ["--mode", "linear", "--out", str(tmp_path / "out")]
    assert run_all.main(args, notebooks) == 1
    out, err = capsys.readouterr()
    assert "smoke gate: fail" in out and err == "" and "[6/6] 05_report  done" in out
    run = tmp_path / "out" / "bert"
    assert json.loads((run / "config.lock.json").read_text())["quick"] is False
    assert run_all.main([*args, "--dry-run"], notebooks) == 0
    assert capsys.readouterr().out.count("skip (unchanged)") == 6
    (run / "verdict.json").write_text("{}")
    assert (
        run_all.main([*args, "--resume"], write_project(notebooks, validate='run.write_json("verdict.json", {})')) == 7
    )
    write_project(notebooks, validate=verdict_body("pass", "partial"))
    assert run_all.main([*args, "--resume"], notebooks) == 0
    assert run_all.main([*args, "--resume", "--seed", "4"], notebooks) == 2
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.notebooks
def test_a_quick_run_shows_its_gates_and_does_not_enforce_them(tmp_path, capsys):
    notebooks = write_project(tmp_path / "notebooks", validate=verdict_body("fail"))
    assert run_all.main(["--quick", "--mode", "linear", "--out", str(tmp_path / "out")], notebooks) == 0
    out = capsys.readouterr().out
    assert "smoke gate: fail" in out and "gates are shown, not enforced" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [(error.__name__, error.exit_code) for error in IcdError.__subclasses__()] + [("ValueError", 9)],
)
def test_a_cells_error_becomes_the_exit_code(tmp_path, capsys, monkeypatch, error, code):
    # The real mapping from a real notebook is tested in test_pipeline; here every class on its way to the shell.
    from icd_lib.execute import pipeline
    from icd_lib.execute.notebook import CellFailure

    def fail(source, *_, **__):
        raise CellFailure(4, "f()", error, "reason").to_error(source.name)

    monkeypatch.setattr(pipeline, "execute", fail)
    monkeypatch.setattr(pipeline, "_index_what_is_there", lambda run: None)  # a process that draws pages, tested there
    args = ["--no-measure", "--out", str(tmp_path / "out")]
    assert run_all.main(args, write_project(tmp_path / "notebooks")) == code
    err = capsys.readouterr().err
    assert "00_setup_check.ipynb, cell 4" in err and "--resume" in err and "Traceback" not in err


def test_a_bug_exits_9_and_shows_where(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command_line, "load_scenario", lambda *_, **__: 1 / 0)
    assert run_all.main(["--out", str(tmp_path)]) == 9
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.notebooks
def test_full_disk_in_a_notebook_exits_7(tmp_path, capsys):
    body = "import errno, os\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'x')"
    notebooks = write_project(tmp_path / "notebooks", setup_check=body)
    assert run_all.main(["--no-measure", "--out", str(tmp_path / "out")], notebooks) == 7
    assert "disk is full" in capsys.readouterr().err


def heed_interrupts():
    """A test suite started in the background of a shell ignores SIGINT, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("name", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.notebooks
def test_an_interrupt_ends_the_kernel_keeps_whole_files_and_can_be_resumed(tmp_path, name):
    wait = 'print("working", os.getpid(), flush=True)\nthreading.Event().wait(120)'
    body = "import os, subprocess, threading\n" + wait
    notebooks = write_project(tmp_path / "notebooks", build_graph=body)
    args = ["--quick", "--no-measure", "--mode", "linear", "--out", tmp_path / "out"]
    process = subprocess.Popen(
        command(notebooks, *args),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project_root(),
        preexec_fn=heed_interrupts,
    )
    for line in process.stdout:
        if "working" in line:
            break
    kernel = int(line.split()[-1])
    process.send_signal(name)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "--resume" in err and "Traceback" not in err, err
    assert not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE
    run = tmp_path / "out" / "bert"
    hidden = [p for p in run.rglob(".*") if p.name != ".lock"]
    assert hidden == [] and nbformat.read(run / "01_build_graph.ipynb", 4).cells
    assert json.loads((run / "stages.json").read_text())["stages"]["01_build_graph"]["status"] == "interrupted"
    last = json.loads((run / "run.log").read_text().splitlines()[-1])
    assert (last["stage"], last["ok"], last["meta"]["status"]) == ("01_build_graph", False, "interrupted")
    if name == signal.SIGINT:
        write_project(notebooks)
        done = subprocess.run(
            command(notebooks, *args, "--resume"), capture_output=True, text=True, cwd=project_root(), check=True
        )
        assert "00_setup_check  unchanged" in done.stdout and "01_build_graph  done" in done.stdout


def test_the_script_runs_from_another_folder(tmp_path):
    script = project_root() / "run_all.py"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script, "--list"], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert "bert" in done.stdout
