"""The whole mock scenario for real, quick: eight notebooks through the command line, twice with one seed."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from html_tags import Tags
from table_factory import run_stages

import run_all
from icd_lib import stages
from icd_lib.codesign.layouts import perm_record
from icd_lib.errors import IcdError
from icd_lib.paths import project_root
from icd_lib.run.artifacts import open_run

pytestmark = pytest.mark.notebooks

SMALLER = ["calibration.pilots=8", "calibration.repeats=3", "measure.repeats=8"]
NOTEBOOKS = ["00_setup_check", "01_build_graph", "03_measure", "04_validate", "05_report"]
NOTEBOOKS += [f"{mode}/02_solve" for mode in ("linear", "oneshot", "iterative")]
HASHED = [f"{mode}/W.rows.npz" for mode in ("graph", "linear", "oneshot", "iterative")]


def mock(out, *args, overrides=()):
    words = [word for override in [*SMALLER, *overrides] for word in ("--override", override)]
    return ["--scenario", "mock", "--quick", "--out", str(out), *words, *map(str, args)]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        assert run_all.main(mock(out)) == 0
        yield out / "mock"


def read(run_dir, rel):
    return json.loads((run_dir / rel).read_text())


def test_every_stage_left_its_notebook_its_page_and_its_files(run_dir):
    for name in NOTEBOOKS:
        assert (run_dir / f"{name}.ipynb").is_file() and (run_dir / f"{name}.html").is_file(), name
    files = ["index.html", "report.html", "report.csv", "verdict.json", "manifest.json", "run.log", "graph/w.meta.json"]
    for mode in ("linear", "oneshot", "iterative"):
        files += [f"{mode}/{name}.json" for name in ("perm_before", "perm_after", "transform_meta", "metrics", "solve")]
    for name in [*files, *HASHED]:
        assert (run_dir / name).stat().st_size > 100, name


def test_no_cell_is_broken_or_empty_and_what_does_not_apply_says_why(run_dir):
    told = []
    for name in NOTEBOOKS:
        cells = [cell for cell in read(run_dir, f"{name}.ipynb")["cells"] if cell["cell_type"] == "code"]
        for cell in cells:
            assert not [out for out in cell["outputs"] if out["output_type"] == "error"], name
            shown = [
                out for out in cell["outputs"] if out["output_type"] in ("execute_result", "display_data", "stream")
            ]
            tags = cell["metadata"].get("tags", [])
            assert shown or {"parameters", "injected-parameters"} & set(tags), (name, cell["source"])
            told += [str(out["data"]["text/plain"]) for out in shown if "data" in out]
    assert any("Sensitivity map does not apply here" in text for text in told)
    assert not any("not there" in text for text in told), [text for text in told if "not there" in text]


def test_pages_open_offline_and_every_link_and_image_is_there(run_dir):
    for page in run_dir.rglob("*.html"):
        text = page.read_text()
        assert not re.search(r"""(?:src|href)=["']https?://""", text), page.name
        assert str(run_dir) not in text, page.name
    for name in ("index.html", "report.html"):
        tags = Tags((run_dir / name).read_text())
        for attrs in tags.all("img"):
            assert len(attrs["alt"]) > 20 and (run_dir / attrs["src"]).is_file()
        for attrs in tags.all("a"):
            assert (run_dir / attrs["href"]).is_file(), attrs["href"]
    assert {"calibration", "cache_hits", "kept_rows"} <= {path.stem for path in (run_dir / "figures").iterdir()}


def test_the_headline_compares_with_linear_first_and_says_what_became_of_the_calibration(run_dir):
    text = (run_dir / "index.html").read_text()
    first = re.search(r'class="lead"><strong>(.*?)</strong>', text).group(1)
    assert "linear, with the same transform" in first and "chained reads of unseen events" in first
    assert "Calibration: " in text and "quality is unchanged by construction" in text


def test_figures_have_their_kinds(run_dir):
    rows = list(csv.DictReader((run_dir / "report.csv").open()))
    kinds = {row["metric"]: row["kind"] for row in rows if row["arm"] == "iterative"}
    assert kinds["latency_ms"] == "measured" and kinds["energy_j"] == "modelled"
    assert {kind for metric, kind in kinds.items() if metric.endswith("_hit_pct")} == {"simulated"}
    assert kinds["quality_pct"] == kinds["peak_memory_mb"] == "not_measured"
    assert all((row["value"] == "") == (row["kind"] == "not_measured") for row in rows)


def test_the_cost_passes_its_gate_and_the_second_solve_agrees(run_dir):
    verdict = read(run_dir, "verdict.json")
    assert verdict["smoke"]["checks"]["delta_c_rel"] == "pass"
    assert verdict["determinism"] == {"pi_hash_equal": True, "w_hash_equal": True, "max_metric_drift_rel": 0.0}
    assert all(found["equal"] for found in verdict["same_transform"]["equality"].values())


def test_the_lock_alone_gives_the_same_layouts_graphs_and_costs_and_another_seed_others(tmp_path):
    perms = [f"{mode}/{name}.json" for mode in ("linear", "iterative") for name in ("perm_before", "perm_after")]
    # Pilots that a busy machine disturbed are measured again, and weigh J otherwise.
    overrides = [*SMALLER, "calibration.pilots=0"]

    def prints(run):
        hashes = [run.read_json(rel)["axes"]["rows"]["hash"] for rel in perms]
        costs = [run.read_json(f"{mode}/solve.json")["objective"] for mode in ("linear", "oneshot", "iterative")]
        return hashes, costs, [hashlib.sha256((run.dir / rel).read_bytes()).hexdigest() for rel in HASHED]

    solved = ("setup", "graph", "solve[linear]", "solve[oneshot]", "solve[iterative]")
    run = open_run("mock", overrides, out=tmp_path / "first", quick=True)
    run_stages(run, *solved)
    again = open_run(str(run.dir / "config.lock.json"), out=tmp_path / "again")
    run_stages(again, *solved)
    assert again.scenario.sha256 == run.scenario.sha256
    assert prints(again) == prints(run)
    other = open_run("mock", overrides, out=tmp_path / "other", quick=True, seed=5)
    run_stages(other, *solved[:3])
    assert other.read_json("linear/perm_before.json")["axes"]["rows"]["hash"] != prints(run)[0][0]


def test_a_second_run_skips_everything_and_force_does_not(run_dir, capsys):
    assert run_all.main(mock(run_dir.parent, "--resume")) == 0
    assert capsys.readouterr().out.count("skipped") == len(NOTEBOOKS)
    assert run_all.main(mock(run_dir.parent, "--force", "--dry-run")) == 0
    assert capsys.readouterr().out.count("run (--force)") == len(NOTEBOOKS)


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        ("tampered", 7, "does not match its hash"),
        ("duplicate", 6, "appears more than once"),
        ("short", 6, "but the permutation has"),
    ],
)
def test_a_bad_permutation_is_refused_and_nothing_is_written(run_dir, tmp_path, spoil, code, words):
    record = read(run_dir, "linear/perm_before.json")
    pi = record["axes"]["rows"]["pi"]
    if spoil == "tampered":
        pi[0], pi[1] = pi[1], pi[0]
    else:
        wrong = [*pi[:-1], pi[0]] if spoil == "duplicate" else pi[:-1]
        record = perm_record({"rows": np.array(wrong)}, 0)  # with the hash that belongs to it
    path = tmp_path / "perm.json"
    path.write_text(json.dumps(record))
    run = open_run("mock", [*SMALLER, "calibration.pilots=0", f"solver.reuse_perm={path}"], out=tmp_path, quick=True)
    for rel in ("setup/setup.json", "setup/events.npz", "graph/W.rows.npz"):
        run.path(rel).write_bytes((run_dir / rel).read_bytes())
    with pytest.raises(IcdError, match=words) as caught:
        stages.run_stage("solve", run, "linear", print)
    assert caught.value.exit_code == code
    assert not (run.dir / "linear").exists()


def test_a_bad_trace_ends_the_command_with_its_line_and_exit_code(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"ids": [1, 2], "bytes": 8}\n{"ids": [1,\n')
    command = [sys.executable, str(project_root() / "run_all.py"), "--scenario", "trace", "--mode", "linear"]
    command += ["--override", "graph.trace=mine.jsonl", "--out", str(tmp_path / "out")]
    environment = os.environ | {"ICD_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 7 and "mine.jsonl line 2" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and (tmp_path / "out" / "trace" / "index.html").is_file()
