"""What a GPU's counters said, on pages and in tables; a run on a CPU has none of it."""

import csv
import io
from dataclasses import replace

import pytest
from report_factory import write_run

from icd_lib.errors import ArtifactError
from icd_lib.records.counted import POWER
from icd_lib.report import gpu_counters, measure_tables
from icd_lib.report.full_report import draw_all, report_page
from icd_lib.report.picture import Picture
from icd_lib.report.results import Results
from icd_lib.report.rows import report_csv
from icd_lib.report.table import DoesNotApply, Missing


@pytest.fixture
def results(tmp_path):
    return Results.load(write_run(tmp_path / "bert", gpu=True))


def test_every_arm_has_its_hits_energy_and_the_state_of_the_board(results):
    table = gpu_counters.counters(results)
    assert [row[0] for row in table.rows] == ["dense", "linear", "oneshot", "iterative", "same_transform"]
    shown = repr(table)
    for words in ("78.0", "152, 2, 3 passes each", "1755 to 1980 MHz", "software power cap", "44 °C", "mJ/token"):
        assert words in shown
    assert "whole board" in table.note and "−1.2 %" in table.note.replace("-", "−") and "contains 0" in table.note
    assert "same kernels as in the graph" in table.note


def test_reasons_that_the_driver_does_not_tell_are_not_none(results):
    for reasons, shown in ((None, "not told"), ([], "none")):
        board = {
            arm: replace(state, event_reasons=reasons, slowed=None) for arm, state in results.board_energy.board.items()
        }
        table = gpu_counters.counters(replace(results, board_energy=replace(results.board_energy, board=board)))
        assert {row[-1] for row in table.rows} == {shown}


def test_a_board_that_was_held_back_is_a_badge_on_every_page(results):
    assert not any("GPU slowed down" in text for text in results.badges)
    board = results.board_energy.board
    held = replace(results.board_energy, board=board | {"linear": replace(board["linear"], slowed=True)})
    slow = replace(results, board_energy=held)
    assert any(text.startswith("GPU slowed down: ") and "(linear)" in text for text in slow.badges)
    table = gpu_counters.counters(slow)
    assert "GPU slowed down" in table.badges
    assert {row[0]: row[-1] for row in table.rows}["linear"] == "software power cap (held back)"


def test_the_note_says_what_short_windows_and_the_kind_of_replay_mean(results):
    note = gpu_counters.counters(results).note
    assert "can favour an arm" in note and "less than 5 s" not in note
    short = replace(results.board_energy, window_s=2.0)
    arms = {
        arm: replace(entry, rounds=[replace(record, replay="application") for record in entry.rounds])
        for arm, entry in results.counted.arms.items()
    }
    other = replace(results, board_energy=short, counted=replace(results.counted, arms=arms))
    note = gpu_counters.counters(other).note
    assert "windows of less than 5 s" in note and "ran again for each pass" in note and "favour" not in note


def test_the_sizes_have_each_arm_s_own_hit_rate(results):
    rows = {row[0]: row[-1].value for row in measure_tables.sizes(results).rows}
    assert rows["iterative"] == pytest.approx(78.05) and rows["dense"] == pytest.approx(66.05)


def test_power_is_drawn_over_time_and_told_in_words(results):
    drawn = draw_all(results)
    assert isinstance(drawn["board"], Picture) and "iterative 240 W" in drawn["board"].alt
    page = report_page(results, drawn)
    assert "Counters" in page and "board_power.png" in page and "Counters of the GPU" in page


def test_the_csv_has_a_row_for_each_arm_and_metric(results):
    rows = list(csv.DictReader(io.StringIO(report_csv(results))))
    found = {(row["arm"], row["metric"]): row for row in rows}
    assert float(found["iterative", "l2_hit_pct"]["value"]) == pytest.approx(78.05)
    assert found["iterative", "dram_read_mb"]["kind"] == "measured" and ("all", "l2_hit_pct") not in found
    assert found["all", "power_w"]["value"] == "80.0" and found["dense_again|dense", "energy_rel"]["ci_low"]


def test_a_run_on_a_cpu_has_no_place_for_them(tmp_path):
    results = Results.load(write_run(tmp_path / "bert"))
    assert isinstance(gpu_counters.counters(results), DoesNotApply)
    drawn = draw_all(results)
    assert "board" not in drawn and "Counters of the GPU" not in report_page(results, drawn)


def test_a_run_whose_energy_was_not_measured_says_so_where_the_figure_would_be(results):
    (results.dir / POWER).unlink()
    assert isinstance(gpu_counters.board_over_time(results), Missing)
    bare = replace(results, counted=None, board_energy=None)
    assert gpu_counters.counters(bare).rows[0][2:5] == ["–", "–", "–"]


def test_damaged_readings_are_an_error_with_the_cure(results):
    (results.dir / POWER).write_text("t_s,phase\n0,dense\n")
    with pytest.raises(ArtifactError, match="power.csv is damaged .*--force"):
        gpu_counters.board_over_time(results)
