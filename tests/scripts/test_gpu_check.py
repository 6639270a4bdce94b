"""scripts/gpu_check.sh with a stand-in for Python: which steps it runs, with what, and what it says of the rest."""

import os
import re
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Writes each call to a log; what it answers is told by the environment: HAS_CUDA, REFUSED ("name"), ENDS ("name=code").
PYTHON = """#!/usr/bin/env bash
printf '%q ' "$@" >>"$LOG"; echo >>"$LOG"
case "$*" in
  *"is_available()"*) [ "$HAS_CUDA" = 1 ]; exit ;;
  *get_device_name*) echo "NVIDIA Pretended with CUDA 13.0 torch 2"; exit ;;
  "- $REFUSED "* | "- $REFUSED") cat >/dev/null; echo "a warning"; echo "it is refused here"; exit 1 ;;
  "- "*) cat >/dev/null; exit 0 ;;
  *gpu_page*) exit 0 ;;
esac
if [ "$1" = run_all.py ]; then
  mkdir -p "$OUT/runs/$3"
  touch "$OUT/runs/$3/config.lock.json"
  [ "$3" = "$SLOW" ] && sleep 60
  [ "$3" = "${ENDS%=*}" ] && exit "${ENDS#*=}"
fi
exit 0
"""


@pytest.fixture
def check(tmp_path):
    """Runs the script; returns its exit code, what it said, and the calls of Python, each as words."""
    log, python = tmp_path / "calls", tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(python.stat().st_mode | stat.S_IXUSR)

    def run(*arguments, stop=None, **environment):
        log.write_text("")
        given = {"PY": str(python), "LOG": str(log), "OUT": str(tmp_path / "gpu"), "HAS_CUDA": "1", "REFUSED": "none"}
        given |= {"ENDS": "none=0", "SLOW": "none", "PATH": os.environ["PATH"], **environment}
        command = ["bash", str(ROOT / "scripts/gpu_check.sh"), *arguments]
        with subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as done:
            if stop is not None:
                while given["SLOW"] not in log.read_text():
                    time.sleep(0.05)
                time.sleep(0.5)
                done.send_signal(stop)
            said = done.communicate(timeout=120)[0]
        calls = [shlex.split(line) for line in log.read_text().splitlines()]
        return done.returncode, said, calls

    run.ledger = tmp_path / "gpu" / "gpu_check.txt"
    return run


@pytest.fixture
def nvidia_smi(tmp_path):
    """A PATH with a tool of this name that ends so."""

    def ends(code: int) -> str:
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir()
        tool.write_text(f"#!/bin/sh\nexit {code}\n")
        tool.chmod(0o755)
        return f"{tool.parent}{os.pathsep}{os.environ['PATH']}"

    return ends


def scenarios(calls) -> dict[str, list[str]]:
    """Scenario → the arguments of its run, in the order in which they ran."""
    return {call[2]: call[3:] for call in calls if call[0] == "run_all.py"}


def overrides(words) -> list[str]:
    return [word for before, word in zip(words, words[1:], strict=False) if before == "--override"]


def test_the_steps_come_in_their_order_and_every_run_is_kept_scrubbed(check):
    code, said, calls = check("-k", "scan")
    assert code == 0 and "gpu-check.md says what was settled" in said
    tests = next(i for i, call in enumerate(calls) if call[:2] == ["-m", "pytest"])
    assert calls[tests][-2:] == ["-k", "scan"]
    assert list(scenarios(calls)) == ["mamba", "bert", "bert_large", "smollm2", "mock"]
    benchmark = next(i for i, call in enumerate(calls) if call[0] == "benchmarks/gpu.py")
    assert tests < benchmark < next(i for i, call in enumerate(calls) if call[0] == "run_all.py")
    kept = [call[-1].rpartition("/reference/")[2] for call in calls if "save_reference" in call[1]]
    assert kept == list(scenarios(calls))
    assert calls[-1][:2] == ["-m", "icd_lib.release.gpu_page"]
    ledger = check.ledger.read_text().splitlines()
    assert ledger[0] == "NVIDIA Pretended with CUDA 13.0 torch 2" and "mock: exit 0 after" in check.ledger.read_text()


def test_each_scenario_is_told_what_it_can_do_on_a_device(check):
    found = {name: overrides(words) for name, words in scenarios(check()[2]).items()}
    assert all("device=cuda" in words for name, words in found.items() if name != "mock") and not found["mock"]
    for name in ("mamba", "bert"):
        assert {
            "deploy.runtime=cuda_graph",
            "measure.ladder=true",
            "measure.energy_windows=3",
            "measure.ncu_budget_s=300",
        } <= set(found[name])
    assert not any("compile" in word for word in found["mamba"]), "a compiler records its scan token by token"
    assert {"kv=null", "quantization=null"} <= set(found["smollm2"])


def test_what_the_scenarios_are_told_is_a_configuration(check):
    from icd_lib.run.scenario import load_scenario

    for name, words in scenarios(check()[2]).items():
        config = load_scenario(name, overrides(words), quick="--quick" in words).config
        assert config.get("device") == (None if name == "mock" else "cuda")


def test_runs_are_quick_unless_it_says_otherwise(check):
    assert all("--quick" in words for words in scenarios(check()[2]).values())
    runs = scenarios(check(RUN_ARGS="--seed 3", SCENARIOS="bert bert_large")[2])
    assert list(runs) == ["bert", "bert_large"]
    assert all(words[-2:] == ["--seed", "3"] and "--quick" not in words for words in runs.values())
    assert not any("--quick" in words for words in scenarios(check(RUN_ARGS="")[2]).values())


def test_what_cannot_run_says_why_in_a_line_and_the_others_go_on(check):
    code, said, calls = check(REFUSED="bert_large")
    assert code == 0 and "bert_large: skipped, it is refused here" in said and "bert_large" not in scenarios(calls)
    assert "smollm2" in scenarios(calls)
    told = check.ledger.read_text()
    assert "mock: on the CPU" in told and "smollm2: without its sections kv and quantization" in told


@pytest.mark.parametrize(("ends", "code"), [("bert=1", 0), ("bert=3", 3)])
def test_a_gate_that_is_not_met_is_no_failure_and_an_error_is(check, ends, code):
    found, said, calls = check(ENDS=ends)
    assert found == code and f"bert: exit {ends[-1]} after" in said
    kept = [call[-1].rpartition("/")[2] for call in calls if "save_reference" in call[1]]
    assert "bert" in kept and "mock" in kept, "what an error left is evidence too"


def test_a_scenario_that_takes_more_than_its_share_is_stopped_kept_and_the_others_run(check):
    code, said, calls = check(SLOW="smollm2", MINUTES="1", SCENARIOS="smollm2 bert mamba")
    assert code == 124 and re.search(r"smollm2: stopped after ([5-9]|1\d) s", said) and "bert: exit 0 after" in said
    kept = [call[-1].rpartition("/")[2] for call in calls if "save_reference" in call[1]]
    assert kept == ["smollm2", "bert", "mamba"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_check_that_is_stopped_from_outside_keeps_what_it_has_and_writes_its_page(check, number, code):
    stopped, said, calls = check(SLOW="bert", stop=number)
    assert stopped == code and "the check was stopped from outside" in said
    kept = [call[-1].rpartition("/")[2] for call in calls if "save_reference" in call[1]]
    assert kept == ["mamba", "bert"] and calls[-1][:2] == ["-m", "icd_lib.release.gpu_page"]


def test_what_an_earlier_check_left_certifies_nothing(check):
    folder = check.ledger.parent
    (folder / "reference" / "bert").mkdir(parents=True)
    for name in ("gpu.json", "ncu.json", "power.csv", "samples.json", "README.md", "gpu-check.md"):
        (folder / name).write_text("of an earlier one")
    check(SCENARIOS="mock")
    assert sorted(path.name for path in folder.iterdir()) == ["gpu_check.txt", "runs"]


def test_a_run_of_an_earlier_check_is_not_kept_as_this_ones(check):
    earlier = check.ledger.parent / "runs" / "bert" / "config.lock.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("of an earlier one")
    calls = check(SCENARIOS="bert", MINUTES="0")[2]
    assert not any("save_reference" in call[1] for call in calls) and not earlier.exists()


def test_no_scenario_has_a_share_of_nothing_which_would_be_no_limit(check):
    code, said, _ = check(MINUTES="1", SCENARIOS="mock " + 20 * "bert ", SLOW="mock")
    assert code == 124 and re.search(r"mock: stopped after \d s", said)


def test_what_does_not_fit_into_the_minutes_is_named(check):
    code, said, calls = check(MINUTES="0")
    assert code == 0 and not scenarios(calls)
    assert "tests/gpu: skipped, the 0 minutes are over" in said and "benchmarks/gpu.py: skipped" in said
    assert calls[-1][:2] == ["-m", "icd_lib.release.gpu_page"], "the page says so too"


def test_without_a_device_nothing_is_run_and_no_page_is_written(check, nvidia_smi):
    code, said, calls = check(HAS_CUDA="0", PATH=nvidia_smi(code=9))
    assert "nothing was checked" in said and code == 0 and not check.ledger.exists()
    assert len(calls) == 1


def test_a_device_that_torch_cannot_use_is_an_error(check, nvidia_smi):
    code, said, _ = check(HAS_CUDA="0", PATH=nvidia_smi(code=0))
    assert code == 3 and "install a CUDA build of torch" in said
