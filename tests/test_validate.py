"""Runs judged again from their samples: figures recomputed, tampering refused, several runs pooled."""

import csv
import json
import shutil

import pytest
from packed_run import write_finished_run

from icd_lib.validate import FolderView, as_csv, judge_run, main, pool, table_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_finished_run(tmp_path_factory.mktemp("run")).dir


def test_a_finished_run_is_judged_from_its_samples(folder, capsys):
    code = main([str(folder)])
    out = capsys.readouterr().out
    verdict = json.loads((folder / "verdict.json").read_text())
    assert code == (1 if verdict["smoke"]["status"] == "fail" else 0)
    assert out.count("ok  ") == 5 and "iterative vs dense: −39." in out, out
    row, _ = judge_run(FolderView(folder))
    assert row["comparisons"]["vs_dense"]["value"] == pytest.approx(verdict["vs_dense"]["latency_rel"]["value"])
    assert row["comparisons"]["vs_dense"]["test"]["effect"] == -1.0


def test_a_changed_sample_is_found(folder, tmp_path, capsys):
    copy = tmp_path / "bert"
    shutil.copytree(folder, copy)
    samples = json.loads((copy / "measure/samples.json").read_text())
    next(iter(samples["shapes"].values()))["iterative"] = [1.0] * 12
    (copy / "measure/samples.json").write_text(json.dumps(samples))
    assert main([str(copy)]) == 7
    assert "FAIL  latency" in capsys.readouterr().out


def test_several_runs_become_one_table(folder, tmp_path, capsys):
    other = write_finished_run(tmp_path).dir
    main([str(folder), str(other), "--csv", str(tmp_path / "table.csv")])
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["run"] for row in rows] == [str(folder), str(other), "all 2 runs"]
    assert float(rows[2]["iterative vs dense"]) == pytest.approx(float(rows[0]["iterative vs dense"]))
    assert "iterative vs dense" in capsys.readouterr().out


def test_a_run_s_badges_stand_beside_its_figures(folder, tmp_path, capsys):
    copy = tmp_path / "bert"
    shutil.copytree(folder, copy)
    setup = json.loads((copy / "setup/setup.json").read_text())
    (copy / "setup/setup.json").write_text(json.dumps(setup | {"badges": ["random weights: nothing was judged"]}))
    main([str(copy), "--csv", str(tmp_path / "table.csv")])
    assert "badges: random weights" in capsys.readouterr().out
    row = next(csv.DictReader((tmp_path / "table.csv").open()))
    assert "random weights" in row["badges"]
    assert as_csv([{"run": "=1+1"}]) == "run\n'=1+1\n"


@pytest.mark.parametrize(
    "rel, change",
    [
        ("iterative/solve.json", lambda solve: next(iter(solve["solver"].values())).pop("timed_out")),
        ("measure/measure.json", lambda measure: measure["latency"].update(taken={"8x128": {}})),
        ("measure/measure.json", lambda measure: measure["latency"].update(clocks={"reason": "none"})),
    ],
)
def test_a_file_that_badges_cannot_be_read_from_is_named(folder, tmp_path, capsys, rel, change):
    copy = tmp_path / "bert"
    shutil.copytree(folder, copy)
    found = json.loads((copy / rel).read_text())
    change(found)
    (copy / rel).write_text(json.dumps(found))
    assert main([str(copy)]) == 7
    assert rel in capsys.readouterr().err


def test_pooled_runs_have_an_interval_over_runs():
    found = pool([-0.4, -0.5, -0.45])
    assert found["n"] == 3 and found["least"] == -0.5 and found["most"] == -0.4
    assert found["ci95"][0] < -0.5 and found["ci95"][1] > -0.4 > found["value"] > -0.5
    assert pool([-0.4]) is None
    assert table_of({}) == []


def test_a_folder_without_a_run_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == 7
    assert "holds no run" in capsys.readouterr().err
