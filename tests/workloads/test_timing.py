"""How the measuring stages judge their own time: drift between halves of the rounds, and how fixed clocks are."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from icd_lib.experiment.arms import MODEL, ROWS
from icd_lib.measure.latency import SETTLE_MS
from icd_lib.records.measured import Clocks
from icd_lib.workloads import timing
from icd_lib.workloads.base import Timed
from icd_lib.workloads.timing import clock_state, half_drift, held_clocks, stability


class Context:
    def __init__(self, clocks, device="cpu"):
        self.clocks, self.device, self.said = clocks, device, []
        self.is_on_gpu = device.startswith("cuda")

    def progress(self, line):
        self.said.append(line)

    def get(self, path):
        return {"measure.clocks": self.clocks}[path]


@pytest.mark.parametrize(
    ("second", "locked", "within"), [(1.005, True, True), (1.03, True, False), (1.03, False, True)]
)
def test_unlocked_clocks_relax_the_gate_from_one_to_five_percent(second, locked, within):
    samples = {"8x128": {"dense": [10.0] * 6 + [10.0 * second] * 6}, "1x32": {"dense": [1.0] * 12}}
    found = stability(samples, Clocks(locked=locked, reason=None))
    assert found.within is within
    assert found.latency_drift_rel == pytest.approx(second - 1)
    assert found.tolerance_rel == (0.01 if locked else 0.05)


def test_a_fall_counts_like_a_rise():
    assert half_drift([10.0] * 5 + [8.0] * 5) == pytest.approx(-0.2)
    assert not stability({"x": {"dense": [10.0] * 5 + [8.0] * 5}}, Clocks(locked=False, reason="vm")).within


def test_the_scenario_can_say_that_clocks_are_not_fixed():
    found = clock_state(Context("unlocked"))
    assert not found.locked and "measure.clocks" in found.reason
    assert isinstance(clock_state(Context("auto")).locked, bool)


def test_a_quick_run_does_not_settle_and_tables_of_rows_never_do(monkeypatch):
    asked = []

    def pretend(arms, pairs, *, settle_ms, **_):
        asked.append(settle_ms)
        return {}, {"rounds": 100}

    monkeypatch.setattr(timing, "measure_until_clear", pretend)
    for lays_out, quick in ((MODEL, False), (MODEL, True), (ROWS, False)):
        run = SimpleNamespace(scenario=SimpleNamespace(quick=quick))
        workload = SimpleNamespace(lays_out=lays_out, run=run, get=lambda path: 1, progress=lambda line: None)
        timing.time_arms(workload, Timed("8x128", "latency 8x128", 1024, {}))
    assert asked == [SETTLE_MS, 0.0, 0.0]


@pytest.fixture
def locking(monkeypatch):
    """Devices whose clocks were asked to be locked."""
    asked = []

    @contextmanager
    def pretend(device):
        asked.append(device)
        yield Clocks(locked=True, reason=None, how="NVML")

    monkeypatch.setattr(timing, "locked_clocks", pretend)
    return asked


@pytest.mark.parametrize("clocks", ["auto", "unlocked"])
def test_a_gpu_s_clocks_are_never_touched_unless_that_is_asked_for(locking, clocks):
    with held_clocks(Context(clocks, "cuda:0")) as found:
        assert not found.locked and "measure.clocks" in found.reason
    assert locking == []


def test_a_gpu_s_clocks_are_locked_where_the_scenario_says_fixed(locking):
    context = Context("fixed", "cuda:1")
    with held_clocks(context) as found:
        assert found.locked and found.how == "NVML"
    assert locking == ["cuda:1"] and context.said == ["clocks: NVML"]


def test_fixed_has_no_meaning_for_a_processor_and_it_says_so(locking, monkeypatch):
    monkeypatch.setattr(timing, "clocks_locked", lambda virtualised: Clocks(locked=False, reason="turbo is on"))
    with held_clocks(Context("fixed")) as found:
        assert not found.locked and found.reason.endswith("these are the processor's: turbo is on")
    assert locking == []
