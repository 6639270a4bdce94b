"""Pages of a run on a table of rows: what they claim, what they leave out, and that a model's pages do not change."""

import copy
import csv
import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from report_factory import relative, with_section, with_solved, without_arm, write_run
from table_factory import open_small, run_stages, vetoed, without_veto

from icd_lib.metric import not_measured
from icd_lib.report import calibration_figures, graph_figures, measure_tables, setup_tables, workload_tables
from icd_lib.report.ending import ending_lines
from icd_lib.report.full_report import draw_all, report_page
from icd_lib.report.headline import headline
from icd_lib.report.index import _take_layout_home
from icd_lib.report.results import Results
from icd_lib.report.rows import figures_of, key_numbers, report_csv
from icd_lib.report.table import DoesNotApply, Missing, Note

pytestmark = pytest.mark.wide

STAGES = ("setup", "graph", "solve[linear]", "solve[oneshot]", "solve[iterative]", "measure", "validate")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICD_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        run = open_small(tmp_path_factory.mktemp("table"))
        with without_veto():
            run_stages(run, *STAGES)
    return run


@pytest.fixture(scope="module")
def results(run):
    return Results.load(run.dir)


@pytest.fixture
def changed(results):
    """Results whose parts may be changed at will."""
    return copy.deepcopy(results)


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (relative(-0.2), "Iterative takes 20.0 % less time than linear, with the same transform"),
        (relative(0.01), "No difference in latency between iterative and linear"),
        (relative(0.2), "Iterative takes 20.0 % MORE time than linear"),
    ],
)
def test_the_first_sentence_claims_against_linear_what_the_interval_supports(results, item, words):
    first, second, *_ = headline(with_section(results, "same_transform", latency_rel=item))
    assert first.startswith(words) and first.endswith("chained reads of unseen events).")
    assert second.startswith("On the accesses that survive, re-permuting changes C by −")


def test_a_run_without_iterative_claims_nothing_for_it(results):
    missing = not_measured("fraction", "the run has no arm 'iterative'")
    lines = headline(with_section(results, "vs_dense", latency_rel=missing))
    assert lines[0].startswith("No result for iterative") and "the untouched table" in lines[1]


def test_a_loop_that_accepted_nothing_and_a_broken_control_are_said(results):
    refused = with_solved(results, "iterative", accepted_strength=0.0)
    lines = headline(with_section(refused, "aa_control", contains_zero={"chained": True, "overlapped": False}))
    assert any("Iterative accepted nothing" in line and "the layout of linear" in line for line in lines)
    assert any("A/A control of overlapped reads excludes 0" in line for line in lines)


def test_what_became_of_the_weights_is_said_plainly(changed):
    changed.calibration.update({"kept_defaults": True, "reason": "poor fit: R² 0.3; the given weights are kept"})
    assert "Calibration: poor fit: R² 0.3; the given weights are kept." in headline(changed)
    changed.calibration.update({"kept_defaults": False, "reason": "R² is 0.9: alpha 1"})
    assert "Calibration: R² is 0.9: alpha 1; layouts are solved with these weights." in headline(changed)
    changed.config["calibration"]["apply"] = False
    assert any("not used, the scenario keeps its weights" in line for line in headline(changed))


def test_correlations_are_pearsons_and_name_what_does_not_vary(changed):
    pilots = changed.calibration["pilots"]
    for pilot in pilots:
        pilot["targets"]["l2_hit_pct"] = 90.0
    picture = calibration_figures.correlations(changed)
    c = np.array([pilot["C"] for pilot in pilots])
    ms = np.array([pilot["targets"]["latency_ms"] for pilot in pilots])
    assert f"C and latency r = {np.corrcoef(c, ms)[0, 1]:+.2f}" in picture.alt
    assert "L2" not in picture.alt
    rows = {row[0]: row for row in calibration_figures.fit(replace(changed)).rows}
    assert rows["Δ latency, %"][1] == "measured" and rows["Δ energy, %"][1] == "modelled"


def test_a_scenario_without_pilots_says_so(changed):
    changed.config["calibration"]["pilots"] = 0
    missing = calibration_figures.correlations(replace(changed, calibration=None))
    assert isinstance(missing, Missing) and "calibration.pilots: 0" in missing.reason


def test_every_arm_is_in_the_tables_with_its_sizes(results):
    places = {row[0]: row[1:] for row in workload_tables.widths(results).rows}
    for mode, solve in results.solves.items():
        kept = solve.sizes
        assert places[mode][0] == f"{kept.rows:,}"
        assert kept.rows == kept.living_rows + kept.dead_rows_kept
    arms = [row[0] for row in workload_tables.caches(results).rows]
    assert arms == list(next(iter(results.shapes.values())))
    assert [row[0] for row in workload_tables.comparisons(results).rows][1].startswith("iterative vs compaction alone")


def test_gates_show_the_computed_cost_and_zero_without_a_sign(results):
    table = measure_tables.gates(results)
    shown = {(row[0], row[1]): row for row in table.rows}
    assert shown["smoke", "Q of π₁ less Q of π₀ on W′"][2] == "≥ 0"
    assert shown["smoke", "C of π₁ against π₀ on W′"][2] == "≤ −10 %"
    assert "computed exactly" in table.note


def test_csv_has_every_figure_once(results):
    rows = list(csv.DictReader(io.StringIO(report_csv(results))))
    keys = [(row["arm"], row["shape"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys) == len(figures_of(results))
    assert ("iterative", "unseen events", "l1d_hit_pct") in keys and (
        "iterative|packed",
        "chained",
        "vs_packed.latency_rel",
    ) in keys
    assert {row["kind"] for row in rows if row["metric"].startswith("r2.")} <= {"modelled", "not_measured"}
    assert [what for what, *_ in key_numbers(results)][0] == "latency, iterative vs linear"


def test_without_linear_only_what_the_gates_judge_is_held_against_it(results):
    other = replace(without_arm(results, "linear", "same_transform", "same_quality"), stages={})
    numbers = [what for what, *_ in key_numbers(results)]
    assert [what for what, *_ in key_numbers(other)] == [what for what in numbers if "vs linear" not in what] != numbers
    rows = {row[0]: row for row in workload_tables.comparisons(other).rows}
    assert rows.keys() == {row[0] for row in workload_tables.comparisons(results).rows}
    assert rows["iterative vs linear, same transform"][1].is_missing


def test_the_last_lines_of_a_run_give_the_layout_and_what_it_gained(run, results):
    lines = ending_lines(results)
    kept = results.solves["iterative"].sizes.rows
    assert lines[0].startswith(f"You have a layout, {kept:,} rows in their new order, in ")
    assert lines[1].startswith("Time of reads that no layout was solved on: ") and "linear, with the same" in lines[1]
    assert "Gates (iterative vs linear, with the same transform): smoke" in "\n".join(lines)
    code = "\n".join(line.strip() for line in lines if line.startswith("  "))
    assert_layout_taken(code, run, results, "iterative")


def assert_layout_taken(code, run, results, mode):
    """`code` makes the mode's table out of the old one: as many rows as its arm has, every living one among them."""
    found = {"old_table": np.arange(results.graphs["rows"]["D"])}
    exec(code, found)
    alive = run.read_json(f"{mode}/transform_meta.json")["axes"]["rows"]["alive"]
    taken = found["new_table"].tolist()
    assert len(set(taken)) == len(taken) == results.solves[mode].sizes.rows and set(alive) <= set(taken)


def test_a_layout_whose_round_was_rolled_back_keeps_every_living_row(tmp_path, monkeypatch):
    run = open_small(tmp_path, "calibration.pilots=0")
    with vetoed():
        run_stages(run, *STAGES)
    found = Results.load(run.dir)
    assert not found.is_changed("iterative")
    lines = ending_lines(found)
    assert any(line.startswith("Nothing was accepted") for line in lines)
    assert_layout_taken("\n".join(line.strip() for line in lines if line.startswith("  ")), run, found, "iterative")
    page = html.unescape(re.search("<pre>(.*)</pre>", _take_layout_home(found), re.DOTALL)[1])
    monkeypatch.chdir(run.dir)
    assert_layout_taken(page, run, found, "iterative")


def test_pages_leave_out_what_does_not_apply(results):
    drawn = draw_all(results)
    assert {"calibration", "caches", "kept"} <= set(drawn) and not {"ladder", "curves", "frontier"} & set(drawn)
    assert not any(isinstance(item, DoesNotApply) for item in drawn.values())
    text = report_page(results, drawn)
    assert "does not apply" not in text and "Runtimes" not in text and "What a layout costs" in text
    told = graph_figures.sensitivity_map(results)
    assert isinstance(told, DoesNotApply) and told.reason in told._repr_html_()


def test_a_models_pages_have_nothing_of_tables(tmp_path):
    model = Results.load(write_run(tmp_path / "bert"))
    for shown in (calibration_figures.correlations(model), setup_tables.recording(model)):
        assert isinstance(shown, DoesNotApply)
    text = report_page(model, {})
    assert "does not apply" not in text and "What a layout costs" not in text and "Runtimes" in text


def test_how_to_record_a_trace_is_shown_with_code_that_makes_one(results, tmp_path):
    note = setup_tables.recording(results)
    assert isinstance(note, Note) and "graph.trace=my_trace.jsonl.gz" in note.code
    code = note.code.replace("my_trace.jsonl.gz", str(tmp_path / "my_trace.jsonl.gz"), 1)
    exec(code, {"row_numbers": [3, 1, 2]})

    from icd_lib.graph.trace import read_events

    assert read_events(tmp_path / "my_trace.jsonl.gz").ids.tolist() == [3, 1, 2]
