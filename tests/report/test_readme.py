"""The README states the reference runs' numbers and no others."""

import json

import pytest
from report_factory import write_run

from icd_lib.errors import ArtifactError
from icd_lib.paths import project_root
from icd_lib.report import readme


@pytest.fixture
def root(tmp_path):
    """A project with one reference run."""
    write_run(tmp_path / readme.GENERAL)
    return tmp_path


def row(table, start):
    (found,) = [line for line in table.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_readme_holds_the_numbers_of_the_reference_run():
    text = (project_root() / "README.md").read_text(encoding="utf-8")
    assert readme.with_numbers(text) == text


def test_what_the_gates_judge_comes_first_and_is_marked(root):
    lines = readme.numbers_table(root).splitlines()
    judged = "iterative vs the same transform in linear's layout"
    assert lines[2] == f"| **{judged}** (the gates judge this) | -35.0 % (-37.0 … -33.0) |"
    assert row("\n".join(lines), "| iterative vs linear at the same quality budget")[1] == "-31.0 % (-33.0 … -29.0)"
    assert f"Gates of `bert` ({judged}; budget 0.1 pp of own quality on unseen text): smoke partial" in "\n".join(lines)
    limits = "iterative vs linear at the same quality budget: smoke met, strict not met"
    assert f"Put to the same limits of latency: {limits}" in "\n".join(lines)


def test_unseen_and_seen_text_stand_side_by_side_in_all_readings(root):
    table = readme.numbers_table(root)
    assert row(table, "| unseen text, the budget's")[1:] == [
        "+0.040 pp (-0.020 … +0.100)",
        "+0.140 pp (+0.080 … +0.200)",
        "+0.840 pp (+0.780 … +0.900)",
        "0.988",
        "products",
    ]
    assert row(table, "| seen text")[1] == "+0.010 pp (-0.050 … +0.070)"


def test_a_specialised_run_stands_beside_it_with_its_speed_and_what_it_loses_elsewhere(root):
    assert "specialised" not in readme.numbers_table(root)
    write_run(root / readme.SPECIALISED, budget_on="seen")
    lock = root / readme.SPECIALISED / "config.lock.json"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"scenario": "bert_domain"}))
    general, _, special = readme.numbers_table(root).partition("`bert_domain` (specialised")
    assert "latency against dense: -40.0 % (-42.0 … -38.0) at 8x128" in special
    assert row(special, "| unseen text")[1] == "+2.040 pp (+1.980 … +2.100)"
    assert row(special, "| seen text, the budget's")[1] == "+0.010 pp (-0.050 … +0.070)"
    assert "+0.040 pp" in general


def test_a_changed_number_is_noticed(root, monkeypatch):
    monkeypatch.setattr(readme, "project_root", lambda: root)
    text = readme.with_numbers(f"# ICD\n{readme.START}\n{readme.END}\n")
    assert readme.with_numbers(text) == text
    tampered = text.replace("| iterative vs dense | ", "| iterative vs dense | 9", 1)
    assert readme.with_numbers(tampered) == text != tampered


def test_a_reference_run_that_was_judged_otherwise_is_refused(root):
    path = root / readme.GENERAL / "verdict.json"
    verdict = json.loads(path.read_text())
    del verdict["quality"], verdict["gates_comparison"]
    path.write_text(json.dumps(verdict))
    with pytest.raises(ArtifactError, match=r"ICD 0\.0\.9.*no gates_comparison and no quality; make it again"):
        readme.numbers_table(root)
    path.unlink()
    with pytest.raises(ArtifactError, match="holds no judged run"):
        readme.numbers_table(root)


def test_a_readme_without_markers_is_refused(root, monkeypatch):
    monkeypatch.setattr(readme, "project_root", lambda: root)
    with pytest.raises(ArtifactError, match="markers"):
        readme.with_numbers("# ICD\n")
