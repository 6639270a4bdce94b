"""The evaluator's list: it ticks what ended well, goes on where it stopped, and starts anew for another commit."""

import json

import pytest

from icd_lib.paths import project_root
from icd_lib.release import evaluate
from icd_lib.release.evaluate import STEPS, Step, main, run_step


@pytest.fixture
def short(tmp_path, monkeypatch):
    """Two quick steps in an empty project; the second fails until a file is there."""
    steps = (
        Step("first", "works", "python -c pass", 0.1),
        Step("second", "needs a file", "python -c \"open('wanted')\"", 0.1),
    )
    monkeypatch.setattr(evaluate, "STEPS", steps)
    monkeypatch.setattr(evaluate, "project_root", lambda: tmp_path)
    monkeypatch.setattr(evaluate, "git_state", lambda root: {"head": "abc"})
    return tmp_path


def test_a_failed_step_is_not_ticked_and_is_tried_again(short, capsys):
    assert main([]) == 1
    text = (short / "artifacts/checklist.md").read_text()
    assert "- [x] **first**" in text and "- [ ] **second**" in text and "failed: second" in capsys.readouterr().out
    (short / "wanted").touch()
    assert main([]) == 0
    assert "1 of 2 steps to do" in capsys.readouterr().out
    assert "- [x] **second**" in (short / "artifacts/checklist.md").read_text()


def test_another_commit_starts_anew(short, monkeypatch, capsys):
    (short / "wanted").touch()
    assert main([]) == 0
    monkeypatch.setattr(evaluate, "git_state", lambda root: {"head": "other"})
    assert main(["--list"]) == 0 and "- [ ] **first**" in capsys.readouterr().out
    assert main(["first"]) == 0
    assert json.loads((short / "artifacts/checklist.json").read_text())["head"] == "other"


def test_a_gate_that_is_not_met_is_told_and_ticked(short):
    step = Step("gate", "judged", "python -c 'raise SystemExit(1)'", 0.1, True)
    assert run_step(step, short)["status"] == "gate not met"
    assert run_step(Step("gate", "judged", step.command, 0.1), short)["status"] == "failed"


def test_an_unknown_step_is_named(short, capsys):
    assert main(["third"]) == 2
    assert "'third'" in capsys.readouterr().err


def test_the_listed_programs_exist():
    for step in STEPS:
        program = step.command.split()[1]
        root = project_root()
        exists = (root / program).is_file() or step.command.startswith(("make ", "python -m icd_lib."))
        assert exists, step.command
