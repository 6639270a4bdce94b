"""report.csv: every figure once, with its kind and its reason."""

import csv
import io
import json

import pytest
from report_factory import DROP_IN, HOSTILE, LOSSES, write_run

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
    assert float(by_key["iterative", "", "own_drop_pp.unseen"]["ci_low"]) == pytest.approx(-0.02)
    for row in rows:
        assert row["kind"] in ("measured", "modelled", "simulated", "not_measured")
        assert (row["value"] == "") == (row["kind"] == "not_measured") == (row["reason"] != "")
    assert by_key["all", "", "openvino.latency_ms"]["reason"] == f"not installed {HOSTILE}"


def test_random_weights_leave_quality_out_with_the_reason(tmp_path):
    rows = read(Results.load(write_run(tmp_path / "bert", trained=False)))
    assert not [row for row in rows if "drop_pp" in row["metric"]]
    quality = [row for row in rows if row["metric"].startswith("quality")]
    assert quality and all(row["kind"] == "not_measured" and row["reason"] == "random weights" for row in quality)


def test_every_reading_of_every_split_and_domain_has_its_row(tmp_path):
    rows = read(Results.load(write_run(tmp_path / "bert")))
    found = {row["metric"]: float(row["value"]) for row in rows if row["arm"] == "iterative" and row["value"]}
    for split, domains in LOSSES.items():
        mean = sum(domains.values()) / len(domains)
        for where, loss in {split: mean, **{f"{split}.{name}": loss for name, loss in domains.items()}}.items():
            assert found[f"own_drop_pp.{where}"] == pytest.approx(loss)
            assert found[f"own_labelled_drop_pp.{where}"] == pytest.approx(loss + 0.1)
            assert found[f"dropin_drop_pp.{where}"] == pytest.approx(loss + DROP_IN)
            assert 0.98 < found[f"cosine_to_dense.{where}"] < 0.99
    assert found["own_drop_pp.unseen.openvino_bf16"] == 0.06  # judged again in the fastest runtime, which rounds
    linear = {row["metric"] for row in rows if row["arm"] == "linear"}
    assert "own_drop_pp.unseen" in linear and "own_drop_pp.seen" not in linear


def test_a_language_model_has_perplexity_and_no_drop_in(tmp_path):
    rows = read(Results.load(write_run(tmp_path / "mamba", language=True)))
    found = {row["metric"]: row["value"] for row in rows if row["arm"] == "iterative"}
    assert float(found["perplexity_ratio_to_dense.unseen"]) == 1.0042 and float(found["kl_to_dense.seen.films"]) == 0.01
    assert not [metric for metric in found if metric.startswith(("dropin", "cosine")) and "openvino" not in metric]


def test_key_numbers_are_the_verdicts_own_in_the_order_of_what_is_asked_first(tmp_path):
    results = Results.load(write_run(tmp_path / "bert"))
    found = {what: (item.value, remark) for what, item, remark in key_numbers(results)}
    assert list(found) == [
        "latency, iterative vs dense",
        "own quality lost, unseen text",
        "drop-in quality lost, unseen text",
        "own quality lost, seen text",
        "drop-in quality lost, seen text",
        "latency, iterative vs the same transform in linear's layout",
        "latency, iterative vs linear at the same quality budget",
        "latency, iterative vs oneshot at the same quality budget",
        "fastest here: iterative in OpenVINO bf16",
        "parameters, iterative vs dense",
    ]
    assert found["own quality lost, unseen text"][0] == pytest.approx(0.04)
    assert found["drop-in quality lost, seen text"][0] == pytest.approx(0.01 + DROP_IN)
    value, remark = found["latency, iterative vs linear at the same quality budget"]
    assert value == -0.31 and remark == "put to the gates' limits: smoke met, strict not met"
    value, remark = found["fastest here: iterative in OpenVINO bf16"]
    assert value == pytest.approx(-0.7) and "in it the model loses own quality +0.060 pp" in remark
    assert found["parameters, iterative vs dense"][0] == -0.25


def test_a_loss_outside_the_domain_says_so_beside_its_number(tmp_path):
    results = Results.load(write_run(tmp_path / "bert", budget_on="seen"))
    remarks = {what: remark for what, _, remark in key_numbers(results)}
    assert remarks["own quality lost, unseen text"] == "outside its domain"
    assert remarks["own quality lost, seen text"] == "positive = worse"


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
