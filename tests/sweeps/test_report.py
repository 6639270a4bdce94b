"""The pages of a sweep: offline, escaped, every point with its state, and the frontier with its commands."""

import csv
import re
import subprocess
import sys

import pytest
from report_factory import HOSTILE
from sweep_factory import write_sweep

from icd_lib.paths import project_root
from icd_lib.sweeps import page as page_module
from icd_lib.sweeps.report import effects_of, run_stage

FACTORS = {"transform.rate": ["0.3", "0.5"], "precision": ["fp32", "fp8", HOSTILE]}
POINTS = {
    "a": ({"transform.rate": "0.3", "precision": "fp32"}, (10.0, 0.05, 900)),
    "b": ({"transform.rate": "0.5", "precision": "fp32"}, (8.0, 0.4, 700)),
    "c": ({"transform.rate": "0.3", "precision": "fp8"}, (None, 0.06, 400)),
    "d": ({"transform.rate": "0.5", "precision": "fp8"}, {"status": "failed", "reason": f"it broke {HOSTILE}"}),
    "e": ({"transform.rate": "0.3", "precision": HOSTILE}, {"status": "not_measured", "reason": "no such precision"}),
    "f": ({"transform.rate": "0.5", "precision": HOSTILE}, {"status": "not_run", "reason": "the budget was spent"}),
}


@pytest.fixture
def folder(tmp_path):
    write_sweep(tmp_path / "s", POINTS, FACTORS, quick=True)
    (tmp_path / "s" / "a" / "iterative" / "model").mkdir(parents=True)
    return tmp_path / "s"


def test_the_page_has_every_point_with_its_state_and_its_reason(folder):
    said = []
    found = run_stage(folder, said.append)
    page = (folder / "index.html").read_text()
    assert said and set(found["files"]) == {
        "figures/frontier_latency.png",
        "figures/frontier_size.png",
        "figures/effects.png",
        "report.csv",
        "index.html",
    }
    assert "3 done, 1 failed, 1 not measured, 1 not run" in page and "quick run" in page
    for reason in ("it broke", "no such precision", "the budget was spent"):
        assert reason in page
    body = page.split("<tbody>")[-1].split("</tbody>")[0]
    assert body.count("<tr>") == len(POINTS) and "b ★" in body and "c ★" not in body
    assert "python run_all.py a" in page and "python run_all.py b" in page
    assert "a/iterative/model" in page and "b/iterative/model" not in page
    assert len(list(csv.reader((folder / "report.csv").open()))) == 1 + len(POINTS)


def test_the_page_opens_offline_and_escapes_what_it_is_given(folder):
    run_stage(folder, lambda line: None)
    page = (folder / "index.html").read_text()
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page) and "@import" not in page
    assert page.count("<script") == 1 and HOSTILE not in page
    assert 'name="viewport"' in page and page.count("<img") == page.count('alt="') == 3


def test_the_table_reads_without_the_script_and_sorts_by_plain_numbers_with_it(folder):
    run_stage(folder, lambda line: None)
    page = (folder / "index.html").read_text()
    table = page.split('<table class="sortable">')[1].split("</table>")[0]
    heads = re.findall(r'data-column="(\d+)"', table)
    rows = re.findall(r"<tr>(<td.*?)</tr>", table)
    assert [len(re.findall("<td", row)) for row in rows] == [len(heads)] * len(POINTS)
    keys = [re.findall(r'data-sort="([^"]*)"', row)[5] for row in rows]  # iterative, ms
    assert keys[:3] == ["10.0", "8.0", ""]


def test_the_drawings_tell_in_words_what_they_show(folder):
    found = run_stage(folder, lambda line: None)
    latency, size, energy, effects = found["pictures"]
    assert energy.reason == "no finished point has an energy and a quality"
    assert latency.alt.endswith("on the frontier: 1 iterative; 2 iterative.")
    assert "rate: 0.5 vs 0.3 latency −20.0 %" in effects.alt and "3 iterative" in size.alt


def test_a_sweep_of_which_nothing_has_ended_says_so(tmp_path):
    points = {"a": ({"transform.rate": "0.3"}, {"status": "not_run", "reason": "the budget was spent"})}
    write_sweep(tmp_path / "s", points, {"transform.rate": ["0.3"]})
    found = run_stage(tmp_path / "s", lambda line: None)
    page = (tmp_path / "s" / "index.html").read_text()
    assert found["files"] == ["report.csv", "index.html"] and "No point has finished" in page and "not there" in page


def test_effects_are_of_iterative_and_then_of_the_arms(folder):
    from icd_lib.sweeps.result import SweepResult

    effects = effects_of(SweepResult.load(folder))
    assert [(one.factor, one.level, one.against) for one in effects] == [
        ("transform.rate", "0.5", "0.3"),
        ("precision", "fp8", "fp32"),
        ("precision", HOSTILE, "fp32"),
        ("arm", "iterative", "linear"),
        ("arm", "iterative", "oneshot"),
    ]
    assert effects[1].latency.is_missing and effects[1].size.value == pytest.approx(400 / 900 - 1)


def test_interactions_stand_beside_the_effects_and_say_where_there_is_no_interval(tmp_path):
    factors = {"transform.rate": ["0.3", "0.5"], "precision": ["fp32", "int8"]}
    given = {("0.3", "fp32"): 10.0, ("0.5", "fp32"): 8.0, ("0.3", "int8"): 5.0, ("0.5", "int8"): 5.0}
    points = {
        f"{rate}-{precision}": ({"transform.rate": rate, "precision": precision}, (ms, 0.1))
        for (rate, precision), ms in given.items()
    }
    write_sweep(tmp_path / "s", points, factors)
    found = run_stage(tmp_path / "s", lambda line: None)
    (row,) = found["interactions"].rows
    assert row[0] == "rate: 0.5 vs 0.3, at precision: int8 instead of fp32"
    assert row[1].value == pytest.approx(1.25 - 1) and row[1].n == 1
    page = (tmp_path / "s" / "index.html").read_text()
    assert row[0] in page and "a single quadruple (n = 1) has no interval" in page and "+25.0" in page


def test_a_large_sweep_shows_those_that_matter_and_says_how_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_POINTS", 3)
    monkeypatch.setattr(page_module, "MOST_EFFECTS", 4)
    rates = [str(rate) for rate in range(8)]
    points = {f"p{rate}": ({"rate": rate}, (20.0 + int(rate), 0.1)) for rate in rates}
    points["p5"] = ({"rate": "5"}, {"status": "failed", "reason": "it broke"})
    points["p7"] = ({"rate": "7"}, (3.0, 0.05))
    write_sweep(tmp_path / "s", points, {"rate": rates})
    run_stage(tmp_path / "s", lambda line: None)
    page = (tmp_path / "s" / "index.html").read_text()
    body = page.split("<tbody>")[-1].split("</tbody>")[0]
    assert [name in body for name in ("p0", "p1", "p5", "p7 ★")] == [True, False, True, True]
    assert "3 of 8 points" in page and "The last 4 of 9" in page


@pytest.mark.wide
def test_the_command_writes_the_pages_again(folder):
    command = [sys.executable, "-m", "icd_lib.sweeps.report", str(folder)]
    subprocess.run(command, check=True, cwd=project_root(), capture_output=True)
    assert (folder / "index.html").is_file()
