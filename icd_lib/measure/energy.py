"""Energy per token from hardware counters: RAPL (CPU package) or NVML (NVIDIA GPU); nothing is estimated."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.measure.nvml import is_divided, open_board
from icd_lib.measure.statistics import bootstrap_ci
from icd_lib.metric import Figure, figure, not_measured
from icd_lib.optional import brief

POWERCAP = Path("/sys/class/powercap")
UNIT = "J/token"


class RaplCounter:
    """Energy of all CPU packages in joules, monotone over the wraps of `energy_uj` (read it at least once a minute)."""

    name = "RAPL energy_uj, CPU packages"

    def __init__(self, root: Path = POWERCAP):
        """Raises ResourceError with the reason where the machine has no readable package counter."""
        # intel-rapl:0 is a package; intel-rapl:0:1 (core, dram) is part of it and would be counted twice.
        zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
        if not zones:
            raise ResourceError("no RAPL energy counter on this machine (virtual machines rarely have one)")
        try:
            self._ranges = {zone: int((zone / "max_energy_range_uj").read_text()) for zone in zones}
        except (OSError, ValueError) as error:
            raise ResourceError(f"RAPL says no range of its counter: {brief(error)}") from error
        self._last = {zone: self._read(zone) for zone in zones}
        self._total_uj = 0

    def joules(self) -> float:
        """Joules since this counter was made."""
        for zone, last in self._last.items():
            now = self._read(zone)
            self._total_uj += wrapped_difference(last, now, self._ranges[zone])
            self._last[zone] = now
        return self._total_uj / 1e6

    @staticmethod
    def _read(zone: Path) -> int:
        try:
            return int((zone / "energy_uj").read_text())
        except PermissionError as error:
            raise ResourceError(
                "RAPL's energy_uj is readable by root only; run as root or make it readable (chmod a+r)"
            ) from error
        except (OSError, ValueError) as error:
            raise ResourceError(f"RAPL's energy_uj cannot be read: {brief(error)}") from error


class NvmlCounter:
    """Energy of one NVIDIA GPU in joules (mJ counter since driver load, Volta on, updated about every 100 ms)."""

    name = "NVML total energy consumption"

    def __init__(self, device: str | int = 0):
        """Raises ResourceError with the reason without pynvml, a driver, the board (`open_board`) or the counter.

        A board that is divided into instances (MIG) has one counter for all of them, and is refused.
        """
        self._nvml, self._handle = open_board(device)
        if is_divided(self._nvml, self._handle):
            raise ResourceError(
                f"NVML's energy counter of {device} is that of a board which is divided into instances (MIG), of all "
                "of them; measure on a board without MIG (nvidia-smi -mig 0 as root)"
            )
        try:
            self._start_mj = self._last_mj = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except Exception as error:  # beside NVMLError what ctypes raises on a driver that does not fit
            raise ResourceError(f"NVML has no energy counter here: {str(error) or brief(error)}") from error

    def joules(self) -> float:
        """Joules since this counter was made; ResourceError where the board is lost, or began to count anew."""
        try:
            now = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except Exception as error:
            raise ResourceError(f"NVML's energy counter cannot be read any more: {brief(error)}") from error
        if now < self._last_mj:
            raise ResourceError(
                f"NVML's energy counter went back from {self._last_mj} to {now} mJ: the board or its driver began anew "
                "while energy was measured; measure again"
            )
        self._last_mj = now
        return (now - self._start_mj) / 1e3


def wrapped_difference(before: int, after: int, limit: int) -> int:
    """Increase of a counter that wraps to 0 after `limit`, at most once between the readings.

    >>> wrapped_difference(90, 5, 100)
    16
    """
    return after - before if after >= before else limit + 1 - before + after


def find_counter(device: str = "cpu"):
    """The energy counter of a device ("cpu", "cuda", "cuda:1"); ResourceError with the reason where there is none."""
    return NvmlCounter(device) if device.startswith("cuda") else RaplCounter()


def energy_j_per_token(
    call: Callable[[], object],
    tokens_per_call: int,
    *,
    counter=None,
    device: str = "cpu",
    windows: int = 5,
    window_s: float = 5.0,
    seed: int = 0,
) -> Figure:
    """Figure: J per token of repeated calls, mean over `windows` windows of `window_s` s each, with an interval.

    The counter covers the whole package or board, idle power included. Without a counter the figure is not_measured and
    says why. Raises MeasureError when tokens or windows are not positive.
    """
    if tokens_per_call < 1 or windows < 1 or window_s <= 0:
        raise MeasureError(f"expected positive tokens and windows, got {tokens_per_call}, {windows}, {window_s} s")
    try:
        counter = counter or find_counter(device)
        values = [_window(call, tokens_per_call, counter, window_s) for _ in range(windows)]
    except ResourceError as error:
        return not_measured(UNIT, error.args[0])
    interval = bootstrap_ci(values, lambda drawn: drawn.mean(axis=1), seed=seed, block=1) if windows > 1 else None
    method = f"{counter.name}, mean of windows of {window_s:g} s"
    return figure(float(np.mean(values)), UNIT, "measured", n=windows, method=method, ci95=interval)


def energy_windows(
    arms: Mapping[str, Callable[[], object]],
    tokens_per_call: int,
    counter,
    *,
    windows: int,
    window_s: float = 5.0,
    seed: int = 0,
    enter: Callable[[str], object] = lambda arm: None,
) -> dict[str, list[float]]:
    """J per token of every arm, arm → (windows,): each round runs one window of each, in a random order.

    Windows of one round are pairs, so that drift of the board's temperature and clocks hits all arms alike; every
    second round is in the reverse order of the one before, so that what comes later in a warmer round comes earlier in
    the next.
    `enter(arm)` is called before a window. Raises MeasureError when there is nothing to measure, ResourceError as the
    counter does.
    """
    if not arms or tokens_per_call < 1 or windows < 1 or window_s <= 0:
        raise MeasureError(
            f"expected arms, tokens and windows, got {len(arms)} arms, {tokens_per_call}, {windows}, {window_s} s"
        )
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    rng = np.random.default_rng(seed)
    order: list[str] = []
    for window in range(windows):
        order = order[::-1] if window % 2 else rng.permutation(list(arms)).tolist()
        for arm in order:
            enter(arm)
            found[arm].append(_window(arms[arm], tokens_per_call, counter, window_s))
    return found


def _window(call: Callable[[], object], tokens_per_call: int, counter, window_s: float) -> float:
    """J per token of as many calls as one window holds (at least one)."""
    calls, start_j, start = 0, counter.joules(), time.perf_counter()
    while calls == 0 or time.perf_counter() - start < window_s:
        call()
        calls += 1
    return (counter.joules() - start_j) / (calls * tokens_per_call)
