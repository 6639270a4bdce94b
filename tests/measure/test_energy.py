"""Energy counters: wraps, packages only, and the reason where there is no counter."""

import pytest

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.measure import energy
from icd_lib.measure.energy import RaplCounter, energy_j_per_token, energy_windows, wrapped_difference


def zone(root, name: str, energy_uj: int, limit: int = 999_999):
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit}\n")
    return folder / "energy_uj"


def test_joules_add_up_over_packages_and_wraps_and_skip_subzones(tmp_path):
    first, second = zone(tmp_path, "intel-rapl:0", 900_000), zone(tmp_path, "intel-rapl:1", 0)
    core = zone(tmp_path, "intel-rapl:0:0", 0)
    counter = RaplCounter(tmp_path)
    assert counter.joules() == 0
    first.write_text("400000")
    second.write_text("250000")
    core.write_text("700000")
    assert counter.joules() == pytest.approx(0.5 + 0.25)
    first.write_text("300000")
    assert counter.joules() == pytest.approx(0.75 + 0.9)


def test_wrapped_difference_counts_the_step_over_zero():
    assert wrapped_difference(5, 9, 100) == 4 and wrapped_difference(100, 0, 100) == 1


def test_without_rapl_the_reason_is_given(tmp_path):
    with pytest.raises(ResourceError, match="no RAPL"):
        RaplCounter(tmp_path)


def test_energy_per_token_divides_by_all_tokens_of_the_calls(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", 0, limit=10**12)

    def call():
        file.write_text(str(int(file.read_text()) + 3_000_000))

    item = energy_j_per_token(call, 100, counter=RaplCounter(tmp_path), windows=3, window_s=0.01)
    assert item.value == pytest.approx(0.03) and item.ci95 == pytest.approx((0.03, 0.03)) and item.n == 3


def test_an_unknown_counter_is_not_measured_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr("icd_lib.measure.energy.find_counter", lambda device: RaplCounter(tmp_path))
    item = energy_j_per_token(lambda: None, 8)
    assert item.is_missing and item.value is None and "RAPL" in item.reason


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_has_the_counter_of_its_own_board(monkeypatch, device):
    monkeypatch.setattr(energy, "NvmlCounter", lambda *given: ("NVML", *given))
    assert energy.find_counter(device) == ("NVML", device)


def test_no_tokens_are_refused():
    with pytest.raises(MeasureError, match="positive"):
        energy_j_per_token(lambda: None, 0)


class Clockwork:
    """A counter that goes up by what the calls say they took."""

    name = "clockwork"

    def __init__(self):
        self.total = 0.0

    def joules(self):
        return self.total


def test_windows_of_arms_are_interleaved_and_each_arm_gets_its_own_joules():
    counter, entered = Clockwork(), []

    def spend(joules):
        def call():
            counter.total += joules

        return call

    arms = {"dense": spend(4.0), "small": spend(1.0)}
    found = energy_windows(arms, 2, counter, windows=5, window_s=0.002, enter=entered.append)
    assert found["dense"] == pytest.approx([2.0] * 5) and found["small"] == pytest.approx([0.5] * 5)
    assert [sorted(entered[i : i + 2]) for i in range(0, 10, 2)] == [["dense", "small"]] * 5
    assert len({tuple(entered[i : i + 2]) for i in range(0, 10, 2)}) == 2, "not always in one order"
    assert entered[2:4] == entered[1::-1] and entered[6:8] == entered[5:3:-1], "every second round the other way round"


def test_a_board_that_grows_warmer_does_not_favour_the_arm_that_comes_first():
    class Warming(Clockwork):
        """Each window takes a percent more than the one before, whichever arm it is."""

    counter, windows = Warming(), []

    def call():
        counter.total += 1.0 + 0.01 * len(windows)

    found = energy_windows(
        {"dense": call, "again": call}, 1, counter, windows=4, window_s=0.001, enter=lambda arm: windows.append(arm)
    )
    assert sum(found["dense"]) == pytest.approx(sum(found["again"]))


def test_no_arms_are_refused():
    with pytest.raises(MeasureError, match="0 arms"):
        energy_windows({}, 1, Clockwork(), windows=1)
