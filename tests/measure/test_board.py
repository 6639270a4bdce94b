"""The board over time: each reading in its phase, no cell made up, and reasons in words."""

import sys
import time
import types

import pytest

from icd_lib.errors import ResourceError
from icd_lib.measure.board import Board, Recorder, reasons_of, summarise_phase
from icd_lib.records.counted import BoardState, Reading, as_csv
from icd_lib.storage.atomic import to_json
from icd_lib.storage.json_text import parse_text
from icd_lib.storage.record_json import as_json, from_json


class NVMLError(Exception):
    pass


def fake_nvml(**answers):
    """A module that answers as pynvml does; a function without an answer is not there, an error is raised."""

    def answer(value):
        def ask(*arguments):
            if isinstance(value, Exception):
                raise value
            return value

        return ask

    module = types.ModuleType("pynvml")
    module.NVMLError, module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = NVMLError, 1, 2, 0
    for name, value in {"nvmlInit": None, "nvmlDeviceGetHandleByIndex": "handle", **answers}.items():
        setattr(module, name, answer(value))
    return module


def test_what_the_driver_does_not_tell_stays_empty(monkeypatch):
    answers = {"nvmlDeviceGetPowerUsage": 81074, "nvmlDeviceGetTotalEnergyConsumption": NVMLError("not supported")}
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**answers))
    reading = Board().read(1.5, "dense")
    assert reading.power_w == pytest.approx(81.074) and reading.energy_j is None and reading.sm_mhz is None
    assert as_csv([reading]).splitlines()[1] == "1.5,dense,81.074,,,,,"


@pytest.mark.parametrize(
    ("answers", "mask"),
    [
        ({"nvmlDeviceGetCurrentClocksEventReasons": 0, "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4}, 0),
        ({"nvmlDeviceGetCurrentClocksThrottleReasons": 0x4}, 0x4),
        (
            {
                "nvmlDeviceGetCurrentClocksEventReasons": NVMLError("Function Not Found"),
                "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4,
            },
            0x4,
        ),
        ({}, None),
    ],
)
def test_reasons_are_read_by_the_name_that_package_and_driver_know(monkeypatch, answers, mask):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**answers))
    assert Board().read(0.0, "dense").event_reasons == mask


def test_without_a_driver_the_reason_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlInit=NVMLError("NVML Shared Library Not Found")))
    with pytest.raises(ResourceError, match="Shared Library Not Found"):
        Board()


class Counted:
    def read(self, t_s, phase):
        return Reading(t_s, phase, 100.0, 1.0, 1980, 2619, 40, 0x4)


def test_readings_are_taken_while_the_block_runs_and_carry_its_phase():
    with Recorder(Counted(), every_s=0.005) as recorder:
        for phase in ("idle", "dense"):
            recorder.phase = phase
            time.sleep(0.1)
    taken = len(recorder.readings)
    time.sleep(0.03)
    assert len(recorder.readings) == taken
    phases = [reading.phase for reading in recorder.readings if reading.phase]
    assert phases.count("idle") >= 3 and phases.count("dense") >= 3 and phases == sorted(phases, key="idle dense".find)


def test_a_phase_is_summed_up_from_its_own_readings():
    rows = [
        Reading(0.0, "dense", 300.0, 1.0, 1700, 2619, 50, 0x4),
        Reading(0.1, "dense", None, 2.0, 1980, 2619, None, 0x20),
        Reading(0.2, "idle", 80.0, 3.0, 345, 2619, 30, 0x1),
    ]
    found = summarise_phase(rows, "dense")
    assert found["sm_mhz"] == (1700, 1980) and found["power_w"] == (300.0, 300.0) and found["readings"] == 2
    assert found["event_reasons"] == ["software power cap", "software thermal slowdown"] and found["slowed"]
    idle = summarise_phase(rows, "idle")
    assert idle["event_reasons"] == ["idle"] and not idle["slowed"]
    assert summarise_phase(rows, "none")["sm_mhz"] is None


@pytest.mark.parametrize(
    ("masks", "reasons", "slowed"),
    [((None, None), None, None), ((None, 0), [], False), ((0x4, None), ["software power cap"], True)],
)
def test_reasons_that_are_not_told_are_not_none(masks, reasons, slowed):
    rows = [Reading(0.1 * i, "dense", 300.0, 1.0, 1700, 2619, 50, mask) for i, mask in enumerate(masks)]
    found = summarise_phase(rows, "dense")
    assert found["event_reasons"] == reasons and found["slowed"] is slowed
    state = BoardState(**found)
    assert from_json(BoardState, parse_text(to_json(as_json(state))), "a file") == state


def test_an_unknown_reason_is_shown_as_its_bit():
    assert reasons_of(0) == [] and reasons_of(0x400 | 0x1) == ["idle", "0x400"]
