"""Energy of a board: windows between idle ones, its state beside them, and what happens where its counter fails."""

import importlib
import sys
import time
from dataclasses import replace

import pytest

from icd_lib.errors import ResourceError
from icd_lib.measure.board import Board, integrated_rel
from icd_lib.measure.board_energy import board_windows, energy_figure, seconds_of
from icd_lib.measure.energy import NvmlCounter
from icd_lib.paths import project_root
from icd_lib.records.counted import BoardEnergy, Reading, as_csv, from_csv
from icd_lib.storage.atomic import to_json
from icd_lib.storage.json_text import parse_text
from icd_lib.storage.record_json import as_json, from_json
from tests.gpu_stand_ins import put_pynvml

WATTS = 120.0
SHORT = {"windows": 2, "window_s": 0.15, "settle_s": 0.02}
REFERENCE = project_root() / "outputs" / "reference" / "gpu" / "power.csv"


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Makes the module that stands in for NVML importable."""

    def put(mode="counts"):
        put_pynvml(tmp_path, mode, WATTS)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)
        importlib.invalidate_caches()
        return NvmlCounter("cuda"), Board("cuda")

    yield put
    sys.modules.pop("pynvml", None)


def sleeping(seconds):
    return lambda: time.sleep(seconds)


class Kept(list):
    """All readings as they were kept last, and how many there were each time."""

    def __init__(self):
        self.lengths = []

    def put(self, readings):
        self[:] = readings
        self.lengths.append(len(readings))


def test_joules_are_those_of_the_windows_and_idle_stands_on_both_sides(board):
    kept = Kept()
    calls = {"dense": sleeping(0.02), "iterative": sleeping(0.01)}
    joules, how = board_windows(calls, 10, *board(), keep=kept.put, **SHORT)
    for arm, seconds in (("dense", 0.02), ("iterative", 0.01)):
        assert len(joules[arm]) == 2 and min(joules[arm]) > 0.99 * WATTS * seconds / 10
    assert how.idle_w["before"].value == pytest.approx(WATTS, rel=0.05)
    assert how.integrated_rel == pytest.approx(0, abs=0.05)
    phases = [
        phase for phase, last in zip(kept, [None, *kept], strict=False) if last is None or phase.phase != last.phase
    ]
    named = [reading.phase for reading in phases if reading.phase not in ("", "settling")]
    assert (
        named[0] == "idle before" and named[-1] == "idle after" and sorted(set(named[1:-1])) == ["dense", "iterative"]
    )
    assert how.board["dense"].sm_mhz == (1575, 1575) and how.board["dense"].slowed


def test_how_it_was_read_goes_into_a_file_and_back(board):
    joules, how = board_windows({"dense": sleeping(0.01)}, 10, *board(), **SHORT)
    assert from_json(BoardEnergy, parse_text(to_json(as_json(how))), "a file") == how
    item = energy_figure(joules["dense"], how)
    assert "whole board and not the chip" in item.method and "power samples give" in item.method and item.n == 2
    assert item.ci95[0] <= item.value <= item.ci95[1]


@pytest.mark.parametrize(("mode", "says"), [("lost", "GPU is lost"), ("reset", "went back from")])
def test_a_board_that_is_lost_or_begins_anew_is_an_error_and_its_readings_are_kept(board, mode, says):
    kept = Kept()
    with pytest.raises(ResourceError, match=says):
        board_windows({"dense": sleeping(0.005)}, 10, *board(mode), keep=kept.put, **{**SHORT, "windows": 40})
    assert kept and kept[0].power_w == WATTS


def test_readings_are_kept_after_each_window_so_that_a_run_that_is_killed_has_them(board):
    kept = Kept()
    board_windows({"dense": sleeping(0.01)}, 10, *board(), keep=kept.put, **{**SHORT, "windows": 3})
    assert len(kept.lengths) == 3 + 1 and kept.lengths == sorted(set(kept.lengths)), "more each time"


def test_arms_whose_clocks_were_held_back_are_warned_of(board):
    _, how = board_windows({"dense": sleeping(0.01), "iterative": sleeping(0.01)}, 10, *board(), **SHORT)
    (warning,) = how.warnings
    assert warning.startswith("GPU slowed down: ") and warning.endswith("(dense, iterative)"), "idle phases are no arms"
    for slowed in (False, None):
        free = {phase: replace(state, slowed=slowed) for phase, state in how.board.items()}
        assert replace(how, board=free).warnings == []


def test_windows_that_are_too_short_say_so(board):
    joules, how = board_windows({"dense": sleeping(0.01)}, 10, *board(), **SHORT)
    assert "windows of 0.15 s; less than 5 s" in energy_figure(joules["dense"], how).method
    assert "less than" not in energy_figure(joules["dense"], replace(how, window_s=5.0)).method


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("no counter", "no energy counter here: Not Supported"),
        ("no driver", "Driver Not Loaded"),
        ("divided", "of cuda is that of a board which is divided .* measure on a board without MIG"),
    ],
)
def test_without_a_counter_or_a_driver_the_reason_is_given(board, mode, says):
    with pytest.raises(ResourceError, match=says):
        board(mode)


def readings(*rows):
    return [Reading(t, phase, watts, joules, 1980, None, 40, 0) for t, phase, watts, joules in rows]


def test_power_samples_are_integrated_within_a_phase_only():
    rows = readings(
        (0.0, "dense", 100.0, 0.0),
        (1.0, "dense", 200.0, 140.0),
        (2.0, "settling", 900.0, 9000.0),
        (3.0, "dense", 1.0, 9e6),
    )
    assert integrated_rel(rows, ["dense"]) == pytest.approx(150 / 140 - 1)
    assert integrated_rel(rows, ["linear"]) is None
    assert integrated_rel(readings((0.0, "dense", None, 0.0), (1.0, "dense", 1.0, 1.0)), ["dense"]) is None


def test_counter_and_power_of_a_real_board_agree():
    rows = from_csv(REFERENCE.read_text())
    assert abs(integrated_rel(rows, ["dense", "compacted", "dense again"])) < 0.01
    assert as_csv(rows) == REFERENCE.read_text()


def test_another_table_is_refused():
    with pytest.raises(ValueError, match="expected the columns t_s, phase"):
        from_csv("a,b\n1,2\n")


@pytest.mark.parametrize(
    ("apart", "says"), [(0.2, "believe neither"), (-0.05, "give -5.0 %"), (None, "no power samples")]
)
def test_how_far_counter_and_power_are_apart_is_said(board, apart, says):
    _, how = board_windows({"dense": sleeping(0.01)}, 10, *board(), **{**SHORT, "windows": 1, "window_s": 0.01})
    assert says in replace(how, integrated_rel=apart).agreement


def test_the_time_that_is_announced_holds_every_window():
    assert seconds_of(6, 5, 5.0) == 6 * 5 * 6 + 2 * 6
