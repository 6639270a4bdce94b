"""The pages of a sweep: offline, escaped, every point with its state, and the frontier with its commands."""

import csv
import json
import re
import shutil
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
    for name in "ab":
        (tmp_path / "s" / name / "iterative" / "model").mkdir(parents=True)
    (tmp_path / "s" / "a" / "iterative" / "model" / "model.safetensors").touch()  # b's was not kept
    for name in "ad":
        (tmp_path / "s" / name).mkdir(exist_ok=True)
        (tmp_path / "s" / name / "index.html").touch()
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
        "effects.json",
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
    cards = re.findall(r"<summary>.*?</summary>", page)
    assert len(cards) == 2 and all(re.search(r": −[\d.]+ % against dense, \+0\.\d+ pp lost", card) for card in cards)


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


def test_every_link_leads_to_a_file_and_every_run_with_a_page_has_one(folder):
    run_stage(folder, lambda line: None)
    page = (folder / "index.html").read_text()
    links = {link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith("#")}
    assert {link for link in links if link.endswith("/index.html")} == {"a/index.html", "d/index.html"}
    written_by_the_notebook = {"06_sweep.html", "06_sweep.ipynb"}
    assert all((folder / link).is_file() for link in links - written_by_the_notebook)
    table = page.split('<table class="sortable">')[1]
    assert '<a href="d/index.html">d</a>' in table and '<a href="a/index.html">a ★</a>' in table


# As much of a page as the script of the table touches.
PAGE = """
const rows = KEYS.map((keys, id) => ({id, cells: keys.map(sort => ({dataset: {sort}}))}));
const body = {rows, append(row) { rows.splice(rows.indexOf(row), 1); rows.push(row); }};
const heads = KEYS[0].map((_, column) => ({
  dataset: {column: String(column)}, style: {}, on: {}, attributes: {},
  closest: () => ({tBodies: [body]}), parentNode: {querySelectorAll: () => heads},
  getAttribute(name) { return this.attributes[name] ?? null; },
  setAttribute(name, value) { this.attributes[name] = value; },
  removeAttribute(name) { delete this.attributes[name]; },
  addEventListener(name, act) { this.on[name] = act; },
}));
const document = {querySelectorAll: () => heads};
SCRIPT
const told = [];
for (const [column, event] of CLICKS) {
  heads[column].on[event]({key: "Enter"});
  const sorted = heads.map(head => head.getAttribute("aria-sort")).filter(Boolean);
  told.push([rows.map(row => row.id + 1), sorted]);
}
console.log(JSON.stringify(told));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run the page's script")
def test_the_script_sorts_numbers_as_numbers_texts_as_texts_and_what_is_missing_last(folder):
    run_stage(folder, lambda line: None)
    page = (folder / "index.html").read_text()
    table = page.split('<table class="sortable">')[1].split("</table>")[0]
    keys = [re.findall(r'data-sort="([^"]*)"', row) for row in re.findall(r"<tr>(<td.*?)</tr>", table)]
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    ms, point = 5, 1
    clicks = [(ms, "click"), (ms, "keydown"), (point, "click"), (point, "click")]
    program = PAGE.replace("KEYS", json.dumps(keys)).replace("CLICKS", json.dumps(clicks)).replace("SCRIPT", script)
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=True)
    (up, up_said), (down, down_said), (names, _), (back, _) = json.loads(done.stdout)
    assert up[:2] == [2, 1] and down[:2] == [1, 2], "10 ms is more than 8 ms, and points without a figure come last"
    assert (up_said, down_said) == (["ascending"], ["descending"]), "one column is sorted at a time"
    assert names == [1, 2, 3, 4, 5, 6] and back == names[::-1]


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
    assert found["files"] == ["report.csv", "effects.json", "index.html"]
    assert "No point has finished" in page and "not there" in page


def test_effects_are_of_iterative_and_then_of_the_arms(folder):
    from icd_lib.sweeps.result import SweepResult

    effects = effects_of(SweepResult.load(folder))
    assert [(one.factor, one.level, one.against) for one in effects] == [
        ("transform.rate", "0.5", "0.3"),
        ("precision", "fp8", "fp32"),
        ("precision", HOSTILE, "fp32"),
        ("arm", "iterative", "linear"),
    ], "no point has oneshot"
    kept = json.loads((folder / "effects.json").read_text())["main"] if run_stage(folder, lambda line: None) else {}
    assert list(kept)[0] == "transform.rate: 0.5 vs 0.3" and len(kept) == len(effects)
    assert kept["transform.rate: 0.5 vs 0.3"]["latency"]["value"] == effects[0].latency.value
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
    kept = json.loads((tmp_path / "s" / "effects.json").read_text())["interactions"]
    (name,) = kept
    assert name == "transform.rate: 0.5 vs 0.3, at precision: int8 not fp32" and kept[name]["latency"]["n"] == 1
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
    assert "3 of 8 points" in page and "The last 4 of 8" in page


@pytest.mark.wide
def test_the_command_writes_the_pages_again(folder):
    command = [sys.executable, "-m", "icd_lib.sweeps.report", str(folder)]
    subprocess.run(command, check=True, cwd=project_root(), capture_output=True)
    assert (folder / "index.html").is_file()
