"""Counters of a real board: energy that only grows, clocks and power that are read, L2 sectors that ncu counts."""

import sys
import time

import pytest
import torch

from icd_lib.errors import ResourceError
from icd_lib.measure.board import Board, Recorder, summarise_phase
from icd_lib.measure.energy import NvmlCounter
from icd_lib.measure.ncu import profile
from icd_lib.runtimes.cuda_events import time_round_on_device

pytestmark = pytest.mark.gpu


def nvml(kind):
    try:
        return kind()
    except ResourceError as error:
        pytest.skip(error.args[0])


def busy(seconds: float, every=lambda: None) -> None:
    a = torch.randn(2048, 2048, device="cuda")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        torch.mm(a, a)
        torch.cuda.synchronize()
        every()


def test_the_energy_counter_is_monotone_over_a_busy_window():
    counter, readings = nvml(NvmlCounter), []
    busy(2.0, lambda: readings.append(counter.joules()))
    assert all(later >= earlier for earlier, later in zip(readings, readings[1:], strict=False))
    watts = (readings[-1] - readings[0]) / 2.0
    assert 20 < watts < 2000, "between a board at rest and more than any board may take"


def test_the_board_tells_its_state_while_it_works():
    with Recorder(nvml(Board), every_s=0.05) as recorder:
        recorder.phase = "busy"
        busy(1.0)
        recorder.phase = "rest"
    seen = summarise_phase(recorder.readings, "busy")
    assert seen["readings"] >= 5 and seen["sm_mhz"][1] > 0 and seen["power_w"][1] > 20
    assert [reading.t_s for reading in recorder.readings] == sorted(reading.t_s for reading in recorder.readings)


def test_events_time_the_device_and_not_the_call():
    def sleep(cycles: int):
        return lambda: torch.cuda._sleep(cycles)

    time_round_on_device([sleep(1000)])
    short, long = time_round_on_device([sleep(20_000_000), sleep(200_000_000)])
    assert 5 < long / short < 20


PROGRAM = """
import torch
from icd_lib.measure.ncu import measured_range
a = torch.randn(2048, 2048, device="cuda")
for _ in range(2):
    torch.mm(a, a)
with measured_range():
    torch.relu_(torch.mm(a, a))
torch.mm(a, a)
"""


@pytest.mark.parametrize("replay", ["kernel", "application"])
def test_ncu_counts_the_kernels_of_the_range_and_no_others(replay):
    try:
        record = profile([sys.executable, "-c", PROGRAM], replay=replay, timeout_s=120)
    except ResourceError as error:
        pytest.skip(error.args[0])
    assert 2 <= record.kernels <= 4, "one product, which may be split, and one clamp"
    assert 0 < record.metrics["l2_hit_pct"].value < 100
    matrix_mb = 4 * 2048 * 2048 / 1e6
    assert record.metrics["l2_read_mb"].value > 2 * matrix_mb, "each kernel reads at least what it needs once"
    assert record.passes >= 1 and record.version and record.replay == replay
