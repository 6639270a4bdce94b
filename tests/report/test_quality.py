"""Tables of quality: both texts and all readings side by side, what is above the budget flagged, nothing hidden."""

from dataclasses import replace

import pytest
from report_factory import write_run

from icd_lib.metric import figure
from icd_lib.records.losses import DomainLoss, WholeLoss
from icd_lib.report import measure_tables
from icd_lib.report.losses import domains_above, flagged, is_outside, lost, near
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Flagged, Missing


@pytest.fixture(scope="module")
def general(tmp_path_factory):
    return Results.load(write_run(tmp_path_factory.mktemp("run") / "bert"))


@pytest.fixture(scope="module")
def specialised(tmp_path_factory):
    return Results.load(write_run(tmp_path_factory.mktemp("run") / "bert", budget_on="seen"))


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return Results.load(write_run(tmp_path_factory.mktemp("run") / "mamba", language=True, budget_on="seen"))


def cells(table, *columns):
    """The cells of each row in the named columns."""
    places = [table.columns.index(column) for column in columns]
    return [tuple(row[place] for place in places) for row in table.rows]


def test_every_arm_stands_with_the_texts_that_it_was_judged_on(general):
    found = cells(measure_tables.quality(general), "arm", "text")
    assert found == [
        ("dense", "unseen (the budget's)"),
        ("dense", "seen"),
        ("linear", "unseen (the budget's)"),
        ("oneshot", "unseen (the budget's)"),
        ("iterative", "unseen (the budget's)"),
        ("iterative", "seen"),
    ]


def test_all_readings_have_their_figures_with_intervals(general):
    table = measure_tables.quality(general)
    last = table.rows[-1]  # iterative on seen text
    own, labelled, dropin, cosine, worst = last[3:8]
    assert [round(item.value, 6) for item in (own, labelled, dropin)] == [0.01, 0.11, 0.81]
    assert own.ci95 == pytest.approx((-0.05, 0.07)) and own.se_pp == 0.03
    assert cosine.value == 0.9877 and "0.9877" in repr(table) and worst == "films: +0.020 pp"
    assert table.columns[3:7] == [
        "own quality, lost",
        "labelled tasks only, lost",
        "drop-in quality, lost",
        "cosine to dense",
    ]


def test_outside_the_budgets_domain_every_loss_above_the_budget_is_flagged(specialised, general):
    row = measure_tables.quality(specialised).rows[-1]
    assert row[:2] == ["iterative", "unseen, outside its domain"]
    assert all(isinstance(item, Flagged) and item.words == "outside its domain" for item in row[3:6])
    assert '<div class="fail">' in measure_tables.quality(specialised).to_html()
    assert "outside its domain" in repr(measure_tables.quality(specialised))
    assert not any(isinstance(cell, Flagged) for row in measure_tables.quality(general).rows for cell in row)
    assert is_outside(specialised, "unseen") and not is_outside(specialised, "seen")
    assert not is_outside(general, "unseen") and not is_outside(general, "seen")


def test_on_the_budgets_own_text_each_reading_is_held_against_its_own_budget(general, specialised, tmp_path):
    item = figure(0.3, "pp", "measured", n=1)
    least = replace(item, value=0.1)
    assert flagged(general, "unseen", "own", item) == Flagged(item, "above the budget")
    assert flagged(general, "unseen", "dropin", item) is item
    assert flagged(general, "unseen", "own", least) is least
    assert flagged(general, "unseen", "own", None) is None
    drop_in = Results.load(write_run(tmp_path / "bert"))
    drop_in.config["codesign"]["dropin_budget_pp"] = 0.2
    assert flagged(drop_in, "unseen", "dropin", item) == Flagged(item, "above the drop-in budget")
    assert "0.2 pp of drop-in quality, on unseen text" in measure_tables.quality(drop_in).note
    assert flagged(specialised, "unseen", "own_labelled", item) == Flagged(item, "outside its domain")


def test_domains_are_told_in_words_and_the_one_above_the_budget_is_flagged(general):
    table = measure_tables.quality_by_domain(general)
    assert cells(table, "domain", "what it is", "text", "n")[0] == (
        "products",
        "sentences of product reviews",
        "unseen (the budget's)",
        "50",
    )
    own = dict(cells(table, "domain", "own quality, lost"))
    assert isinstance(own["products"], Flagged) and own["products"].item.value == 0.3
    assert own["dialogues"].value == -0.22
    assert own["dialogues"].ci95 == pytest.approx((-0.22 - 1.96 * 0.03, -0.22 + 1.96 * 0.03), abs=1e-5)
    assert [name for _, name, _ in domains_above(general)] == ["products"]


def test_a_domain_of_ones_own_needs_no_entry_in_the_registry(tmp_path):
    results = Results.load(write_run(tmp_path / "bert"))
    domains = results.measure.quality.lost["iterative"]["seen"].domains
    domains["own"] = domains.pop("films")
    rows = {row[0]: row[1] for row in measure_tables.quality_by_domain(results).rows}
    assert rows["own"] == "text of your own"
    assert ("own", "labels of your own") in cells(measure_tables.quality_by_task(results), "domain", "labels")


def test_labelled_tasks_stand_alone_and_topics_are_their_mean(general):
    table = measure_tables.quality_by_task(general)
    first, second = table.rows[:2]
    assert first[:4] == ["products", "unseen (the budget's)", "strong", "sentiment, by people"]
    assert first[6].value == 0.5 and first[7].value == pytest.approx(1.1)
    assert second[2] == "word topics, mean of 2" and second[6].value == pytest.approx(0.2)
    assert second[6].ci95 is None  # topics of one text go together: the mean of their errors would be a wrong one
    assert len(table.rows) == 8


def test_a_language_model_has_perplexity_and_kl_instead_of_drop_in_and_cosine(language):
    for table in (measure_tables.quality(language), measure_tables.quality_by_domain(language)):
        assert "perplexity relative to dense" in table.columns and "KL to dense, nats" in table.columns
        assert not [name for name in table.columns if "drop-in" in name or "cosine" in name]
        assert "1.0042" in repr(table)
    assert isinstance(measure_tables.quality(language).rows[-1][3], Flagged)
    tasks = measure_tables.quality_by_task(language)
    assert {row[2] for row in tasks.rows} == {"next_token"}


def test_what_was_not_judged_says_why(tmp_path):
    random = Results.load(write_run(tmp_path / "bert", trained=False))
    for make in (measure_tables.quality, measure_tables.quality_by_domain, measure_tables.quality_by_task):
        assert isinstance(make(random), Missing) and "random weights" in make(random).reason
    alone = Results.load(write_run(tmp_path / "linear"))
    del alone.measure.quality.lost["iterative"]
    assert "no iterative arm" in measure_tables.quality_by_domain(alone).reason
    alone.lock["config"]["workload"] = {"kind": "table"}
    assert isinstance(measure_tables.quality_by_domain(alone), DoesNotApply)


def test_a_reading_that_there_is_not_is_no_figure():
    own = WholeLoss(drop_pp=1.0, se_pp=0.5, dense_pct=60.0, pct=59.0)
    entry = DomainLoss(own=own, n=5, kl=0.2)
    assert lost(None, 5) is None and near(entry, "cosine", 5) is None
    assert near(entry, "kl", 5).unit == "nats"
    assert lost(own, 5).ci95 == pytest.approx((1 - 0.98, 1 + 0.98), abs=1e-4)
