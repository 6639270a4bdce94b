"""report.csv: every figure once, with its kind and its reason."""

import csv
import io
import json

import pytest
from report_factory import HOSTILE, write_run

from icd_lib.report.results import Results
from icd_lib.report.rows import COLUMNS, figures_of, key_numbers, report_csv


def read(results):
    return list(csv.DictReader(io.StringIO(report_csv(results))))


def test_one_row_per_figure_with_values_kinds_and_reasons(tmp_path):
    results = Results.load(write_run(tmp_path / "bert"))
    rows = read(results)
    assert list(rows[0]) == COLUMNS and len(rows) == len(figures_of(results))
    keys = [(row["arm"], row["shape"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    by_key = dict(zip(keys, rows, strict=True))
    found = by_key["iterative", "8x128", "latency_rel_vs_dense"]
    assert float(found["value"]) == -0.4 and float(found["ci_high"]) == -0.38 and found["n"] == "20"
    assert float(by_key["iterative", "", "quality_drop_pp"]["ci_low"]) == -0.02
    for row in rows:
        assert row["kind"] in ("measured", "modelled", "simulated", "not_measured")
        assert (row["value"] == "") == (row["kind"] == "not_measured") == (row["reason"] != "")
    assert by_key["all", "", "openvino.latency_ms"]["reason"] == f"not installed {HOSTILE}"


def test_random_weights_leave_quality_out_with_the_reason(tmp_path):
    rows = read(Results.load(write_run(tmp_path / "bert", trained=False)))
    quality = [row for row in rows if row["metric"].startswith("quality")]
    assert quality and all(row["kind"] == "not_measured" and row["reason"] == "random weights" for row in quality)


def test_key_numbers_are_the_verdicts_own(tmp_path):
    results = Results.load(write_run(tmp_path / "bert"))
    found = {what: item["value"] for what, item, _ in key_numbers(results)}
    assert found["latency, iterative vs linear"] == -0.33 and found["latency, iterative vs oneshot"] == -0.25
    assert found["quality lost against dense"] == 0.04 and found["parameters, iterative vs dense"] == 0.0


def test_an_empty_run_has_a_header_only(tmp_path):
    assert report_csv(Results.load(tmp_path)) == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_text_is_a_formula_and_every_row_has_the_badges(tmp_path, start):
    write_run(tmp_path)
    path = tmp_path / "measure" / "measure.json"
    measure = json.loads(path.read_text())
    measure["l2_hit_pct"]["reason"] = start
    path.write_text(json.dumps(measure))
    results = Results.load(tmp_path)
    rows = list(csv.DictReader(io.StringIO(report_csv(results))))
    assert "'" + start in [row["reason"] for row in rows]
    assert {row["badges"] for row in rows} == {"; ".join(results.badges)}
    assert any(row["value"].startswith("-") for row in rows)  # numbers stay numbers
