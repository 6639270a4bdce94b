"""index.html and report.html: offline, linked, escaped, and there for any part of a run."""

import json
import re
import shutil
from urllib.parse import unquote

import pytest
from html_tags import Tags
from report_factory import HOSTILE, write_run

from icd_lib.errors import ArtifactError
from icd_lib.run.artifacts import open_run
from icd_lib.stages import report

pytestmark = pytest.mark.wide


def silent(line):
    pass


def make(tmp_path, **options):
    run = open_run("bert", out=tmp_path)
    write_run(run.dir, **options)
    return run, report.run_stage(run, silent)


@pytest.mark.parametrize("options", [{}, {"ladder": False}, {"trained": False}, {"quick": True}])
def test_pages_open_offline_and_every_link_and_image_exists(tmp_path, options):
    run, result = make(tmp_path, **options)
    assert all((run.dir / rel).is_file() for rel in result["files"])
    for name in ("index.html", "report.html"):
        text = (run.dir / name).read_text()
        tags = Tags(text)
        assert not tags.all("script") and not tags.all("link")
        assert "http" not in text and str(tmp_path) not in text
        for attrs in tags.all("img"):
            assert len(attrs["alt"]) > 20 and (run.dir / attrs["src"]).is_file()
        for attrs in tags.all("a"):
            assert (run.dir / unquote(attrs["href"])).is_file(), attrs["href"]
    assert len(Tags((run.dir / "index.html").read_text()).all("img")) >= 8


def test_data_is_escaped(tmp_path):
    run, _ = make(tmp_path)
    text = (run.dir / "report.html").read_text()
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;alert(&quot;x&quot;)") >= 4  # CPU, model, rollback reason, memory, runtime


def test_badges_stand_on_top_of_both_pages(tmp_path):
    run, _ = make(tmp_path, quick=True)
    for name in ("index.html", "report.html"):
        text = (run.dir / name).read_text()
        assert 0 < text.index("quick run: rough") < text.index("<h1>")


def test_what_was_not_measured_says_why(tmp_path):
    run, _ = make(tmp_path, ladder=False, trained=False)
    text = (run.dir / "report.html").read_text()
    assert "not_measured: random weights" in text
    assert "it was not measured in this run" in text
    assert "no GPU" in text


PARTS = ["setup", "graph", "linear", "oneshot", "iterative", "measure", "verdict.json"]


@pytest.mark.parametrize("kept", [0, 2, 5])
def test_index_renders_after_a_failure_at_any_stage(tmp_path, kept):
    run = open_run("bert", out=tmp_path)
    write_run(run.dir)
    for part in PARTS[kept:]:
        path = run.dir / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run.path("00_setup_check.html").write_text("page")
    run.write_json("stages.json", {"stages": {"03_measure": {"status": "failed"}}})
    report.write_index(run)
    text = (run.dir / "index.html").read_text()
    assert "not complete: 03_measure failed" in text
    assert 'href="00_setup_check.html"' in text and "01_build_graph.html" not in text
    assert "less time" not in text


def test_own_notebook_is_linked_while_the_stage_runs(tmp_path):
    run = open_run("bert", out=tmp_path)
    write_run(run.dir)
    run.write_json("stages.json", {"stages": {"05_report": {"status": "running"}}})
    report.run_stage(run, silent)
    assert 'href="05_report.html"' in (run.dir / "index.html").read_text()


def test_a_damaged_file_is_refused_by_name(tmp_path):
    run = open_run("bert", out=tmp_path)
    write_run(run.dir)
    (run.dir / "verdict.json").write_text(json.dumps({})[:1])
    with pytest.raises(ArtifactError, match=r"verdict\.json is truncated"):
        report.run_stage(run, silent)
    assert not (run.dir / "index.html").exists()


def test_two_runs_of_the_stage_write_equal_bytes(tmp_path):
    run, result = make(tmp_path)
    before = {rel: (run.dir / rel).read_bytes() for rel in result["files"]}
    report.run_stage(run, silent)
    assert before == {rel: (run.dir / rel).read_bytes() for rel in result["files"]}


def test_gate_table_shows_threshold_figure_and_verdict(tmp_path):
    run, _ = make(tmp_path)
    text = (run.dir / "index.html").read_text().replace("\u00a0", " ")
    assert "≤ −30 %" in text and "≤ +0.1 pp" in text and "≥ +5 pp" in text
    assert re.search(r"−35\.0 %</span><small>\[−37\.0 to −33\.0 %\]<br>measured, n = 20", text)


def test_a_loss_outside_the_domain_is_red_and_the_fastest_runtime_is_named(tmp_path):
    run, _ = make(tmp_path, budget_on="seen")
    text = (run.dir / "index.html").read_text().replace("\u00a0", " ")
    assert re.search(r'<div class="fail"><span[^>]*>\+2\.040 pp</span>.*?<small>outside its domain</small></div>', text)
    assert "Outside its domain, on unseen text, it loses +2.040 pp" in text
    (run.dir / "iterative" / "model").mkdir()
    (run.dir / "iterative" / "model" / "config.json").write_text("{}")
    report.write_index(run)
    assert "Fastest here: OpenVINO bf16, −70.0 % time against dense in eager" in (run.dir / "index.html").read_text()
