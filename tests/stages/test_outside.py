"""An arm, a comparison and a metric from outside go through the stages to every file and page: one row each."""

import csv
import dataclasses

import numpy as np
import pytest
from table_factory import open_small, run_stages
from torch import nn

from icd_lib.experiment.arms import ARMS, CONTROL, MODEL, ROWS, Arm
from icd_lib.experiment.comparisons import COMPARISONS, Comparison, Pair
from icd_lib.experiment.metrics import METRICS, Metric
from icd_lib.metric import figure
from icd_lib.release.judge import main
from icd_lib.stages import report
from icd_lib.workloads.model import arms

pytestmark = pytest.mark.wide


def backwards(context):
    return np.arange(context.size)[::-1], np.ones(context.size, dtype=bool)


def rows_of_the_toy(run, found):
    return figure(found.sizes["toy"].rows, "rows", "measured", n=1, method="counted")


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(ARMS._rows, "toy", Arm("toy", CONTROL, {ROWS: "the table backwards"}, {ROWS: backwards}))
    pair = Pair("toy", "iterative vs the table backwards", "the table backwards")
    monkeypatch.setitem(COMPARISONS._rows, "vs_toy", Comparison("vs_toy", {ROWS: pair}, "toy", seen=True))
    row = Metric("toy_rows", "rows of the toy", "rows of the toy", "rows", measure=rows_of_the_toy)
    monkeypatch.setitem(METRICS._rows, "toy_rows", row)


def test_rows_from_outside_reach_samples_verdict_pages_and_the_judge(tmp_path, toys, capsys):
    run = open_small(tmp_path, "calibration.pilots=0")
    run_stages(run, "setup", "graph", "solve[linear]", "solve[iterative]")
    measured, verdict = run_stages(run, "measure"), run_stages(run, "validate")
    assert set(run.read_json("measure/samples.json")["shapes"]["chained"]) >= {"toy", "dense", "iterative"}
    assert "toy" in measured.equality["nothing removed"].arms, "by its mask, not by its name"
    power = measured.latency.taken["chained"].power
    assert "iterative vs toy" in power.detectable
    assert verdict.section("vs_toy").latency_rel.kind == "measured"
    assert verdict.outside_metrics["toy_rows"].value == 2048
    told = report.run_stage(run, lambda line: None)["headline"]
    assert any("the table backwards" in line for line in told)
    page = (run.dir / "report.html").read_text()
    assert "iterative vs the table backwards" in page and "the table backwards" in page
    rows = list(csv.DictReader((run.dir / "report.csv").open()))
    assert {"vs_toy.latency_rel", "toy_rows"} <= {row["metric"] for row in rows}
    assert {row["arm"] for row in rows} >= {"toy", "iterative|toy"}
    main([str(run.dir)])
    assert "rows of the toy: 2,048 rows" in capsys.readouterr().out


def test_a_control_of_a_model_is_made_by_its_row_and_one_that_cannot_be_is_left_out(monkeypatch):
    def made(context, solved):
        return nn.Identity()

    row = Arm("toy", CONTROL, {MODEL: "a toy"}, {MODEL: made})
    cannot = dataclasses.replace(row, name="absent", make={MODEL: lambda context, solved: None})
    monkeypatch.setattr(arms, "controls_of", lambda workload: [row, cannot])
    found = arms.controls(context=None, solved=None)
    assert list(found) == ["toy"] and isinstance(found["toy"], nn.Identity)
