"""The steps from dense in PyTorch to what is deployed: as a table, in the drawing and in report.csv."""

from dataclasses import replace

import pytest

from icd_lib.report import deployment_steps, measure_figures
from icd_lib.report.full_report import draw_all, report_page
from icd_lib.report.picture import Picture
from icd_lib.report.results import Results
from icd_lib.report.rows import figures_of
from icd_lib.report.table import DoesNotApply, Missing
from tests.report_factory import HOSTILE, write_run


@pytest.fixture
def results(tmp_path):
    return Results.load(write_run(tmp_path / "bert", deployed=True))


def test_every_step_says_what_it_is_worth_alone_and_what_it_loses(results):
    table = deployment_steps.table(results)
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == ["dense in PyTorch eager", "precision alone", "S alone", "S and Q, iterative's layout"]
    alone = "what it is worth alone"
    assert rows["precision alone"][alone] == "precision −50.0 % (−52.0 to −48.0 %; against dense in PyTorch eager)"
    assert rows["dense in PyTorch eager"][alone] == "–"
    lost = "lost where strengths are chosen"
    assert rows["precision alone"][lost].value == 0.07
    assert rows["dense in PyTorch eager"][lost] == "not judged: compared with it"
    assert rows["S alone"]["median latency"].is_missing


def test_the_drawing_has_every_step_that_was_timed(results):
    picture = measure_figures.attribution(results)
    assert isinstance(picture, Picture)
    told = picture.alt.partition("From dense in PyTorch")[2]
    assert "precision alone 10.0 ms" in told and "S alone" not in told
    without = replace(results, measure=replace(results.measure, deployment=None))
    assert "From dense" not in measure_figures.attribution(without).alt


def test_every_step_is_in_the_csv(results):
    rows = {(arm, metric): item for arm, _, metric, item in figures_of(results) if metric.startswith("step.")}
    assert rows["dense|dense_eager", "step.latency_rel"].value == -0.5
    assert rows["iterative", "step.latency_rel_vs_eager"].value == pytest.approx(6 / 40 - 1)
    assert rows["iterative_fp32", "step.latency_rel_vs_eager"].is_missing
    assert rows["iterative", "step.own_drop_pp.selection"].value == 0.07
    assert rows["dense_eager", "step.own_drop_pp.selection"].reason == "compared with it"


def test_it_stands_on_the_page_escaped(results):
    page = report_page(results, draw_all(results))
    assert deployment_steps.TITLE in page and HOSTILE not in page and "no fp32 &lt;script&gt;" in page


def test_where_there_are_no_steps_it_says_why(results, tmp_path):
    older = deployment_steps.table(replace(results, measure=replace(results.measure, deployment=None)))
    assert isinstance(older, Missing) and "--force" in older.reason
    plain = deployment_steps.table(Results.load(write_run(tmp_path / "plain")))
    assert isinstance(plain, DoesNotApply) and "eager" in plain.reason
    assert isinstance(deployment_steps.table(Results.load(tmp_path / "none")), Missing)


def test_random_weights_have_latencies_alone(tmp_path):
    table = deployment_steps.table(Results.load(write_run(tmp_path / "bert", deployed=True, trained=False)))
    assert all("not judged" in row[5] for row in table.rows)
