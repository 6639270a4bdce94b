"""Runs judged again from their samples: figures recomputed, tampering refused, several runs pooled."""

import csv
import json
import shutil

import pytest
from packed_run import write_finished_run

from icd_lib.release.judge import FolderView, as_csv, judge_run, main, pool, table_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_finished_run(tmp_path_factory.mktemp("run")).dir


def test_a_finished_run_is_judged_from_its_samples(folder, capsys):
    code = main([str(folder)])
    out = capsys.readouterr().out
    verdict = json.loads((folder / "verdict.json").read_text())
    assert code == (1 if verdict["smoke"]["status"] == "fail" else 0)
    assert out.count("ok  ") == 5 and "iterative vs dense: −39." in out, out
    assert "lost on unseen text, most on products: own quality +0.040 pp" in out and "drop-in quality +0.840 pp" in out
    assert "lost on seen text, most on films: own quality +0.010 pp" in out and "cosine to dense 0.9877" in out
    assert "gates, which judge iterative vs the same transform in linear's layout: smoke" in out
    row, _ = judge_run(FolderView(folder))
    assert row["comparisons"]["vs_dense"].value == pytest.approx(verdict["vs_dense"]["latency_rel"]["value"])
    assert row["comparisons"]["vs_dense"].test.effect == -1.0


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
    assert {f"{row['own quality lost on unseen text, pp']:.5}" for row in rows[:2]} == {"0.039"}
    assert float(rows[0]["drop-in quality lost on seen text, pp"]) == pytest.approx(0.81)
    assert rows[2]["own quality lost on unseen text, pp"] == ""  # quality of several runs is not pooled


def test_a_run_that_was_judged_before_seen_and_unseen_text_is_refused_with_its_version(folder, tmp_path, capsys):
    copy = tmp_path / "bert"
    shutil.copytree(folder, copy)
    verdict = json.loads((copy / "verdict.json").read_text())
    del verdict["quality"], verdict["gates_comparison"]
    (copy / "verdict.json").write_text(json.dumps(verdict))
    version = json.loads((copy / "config.lock.json").read_text())["icd_version"]
    assert main([str(copy)]) == 7
    error = capsys.readouterr().err
    assert f"was made with ICD {version}" in error and "make it again with run_all.py --force" in error


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
    told = capsys.readouterr()
    assert rel in told.out + told.err and "damaged" in told.out + told.err


def test_pooled_runs_have_an_interval_over_runs():
    found = pool([-0.4, -0.5, -0.45])
    assert found.n == 3 and found.least == -0.5 and found.most == -0.4
    assert found.ci95[0] < -0.5 and found.ci95[1] > -0.4 > found.value > -0.5
    assert pool([-0.4]) is None
    assert table_of({}) == []


def test_a_folder_without_a_run_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path)]) == 7
    assert "holds no run" in capsys.readouterr().err
