"""The state of an NVIDIA board over time: power, clocks, temperature, and why its clocks are what they are."""

import functools
import itertools
import operator
import threading
import time
from collections.abc import Collection

from icd_lib.measure.nvml import open_board
from icd_lib.records.counted import Reading

# Bits of nvmlDeviceGetCurrentClocksEventReasons (NVML API reference, nvmlClocksEventReasons).
REASONS = {
    0x1: "idle",
    0x2: "applications clocks setting",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}
SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80  # bits that mean the board was held back


class Board:
    """Reads the state of one board from NVML."""

    def __init__(self, device: str | int = 0):
        """Raises ResourceError with the reason without pynvml, a driver or the board (`open_board`)."""
        self._nvml, self._handle = open_board(device)

    def read(self, t_s: float, phase: str) -> Reading:
        """The board now."""
        nvml = self._nvml
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        millijoules = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return Reading(
            t_s=t_s,
            phase=phase,
            power_w=None if milliwatts is None else milliwatts / 1e3,
            energy_j=None if millijoules is None else millijoules / 1e3,
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            temperature_c=self._ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            event_reasons=self._reasons(),
        )

    def _reasons(self) -> int | None:
        """Why the clocks are what they are; drivers and packages of before 2023 know it by an older name."""
        told = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        return self._ask("nvmlDeviceGetCurrentClocksThrottleReasons") if told is None else told

    def _ask(self, function: str, *arguments) -> int | None:
        """What NVML says, None where it has no such function or the board no such sensor."""
        try:
            return int(getattr(self._nvml, function)(self._handle, *arguments))
        except (AttributeError, self._nvml.NVMLError):
            return None


class Recorder:
    """Readings of a board every `every_s` seconds while the block runs; `phase` names what is going on.

    with Recorder(Board()) as recorder:
        recorder.phase = "dense"
    """

    def __init__(self, board, every_s: float = 0.1):
        self.board, self.every_s = board, every_s
        self.phase = ""
        self.readings: list[Reading] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._record, daemon=True)

    def __enter__(self) -> "Recorder":
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def _record(self) -> None:
        while not self._stop.is_set():
            self.readings.append(self.board.read(round(time.perf_counter() - self._began, 3), self.phase))
            self._stop.wait(self.every_s)


def integrated_rel(readings: list[Reading], phases: Collection[str]) -> float | None:
    """Energy of the power samples in some phases relative to that of the energy counter, less 1; None without either.

    sum(w_k dt_k) / sum(dE_k) - 1 over neighbouring readings of one phase, w the mean power of the two.
    """
    power_j = counter_j = 0.0
    for one, other in itertools.pairwise(readings):
        if one.phase != other.phase or one.phase not in phases:
            continue
        if one.power_w is None or other.power_w is None or one.energy_j is None or other.energy_j is None:
            continue
        power_j += (one.power_w + other.power_w) / 2 * (other.t_s - one.t_s)
        counter_j += other.energy_j - one.energy_j
    return power_j / counter_j - 1 if counter_j > 0 and power_j > 0 else None


def reasons_of(mask: int) -> list[str]:
    """The reasons that a bit mask holds, in words.

    >>> reasons_of(0x4 | 0x200)
    ['software power cap', '0x200']
    """
    rest = mask & ~sum(REASONS)
    return [words for bit, words in REASONS.items() if mask & bit] + ([hex(rest)] if rest else [])


def summarise_phase(readings: list[Reading], phase: str) -> dict:
    """{"readings", "sm_mhz": (least, most), "temperature_c": …, "event_reasons", "slowed"} of one phase.

    event_reasons: all that were seen, in words; slowed: whether one of them holds the board back; None where no
    reading tells them
    """
    seen = [reading for reading in readings if reading.phase == phase]
    told = [reading.event_reasons for reading in seen if reading.event_reasons is not None]
    mask = functools.reduce(operator.or_, told, 0)

    def span(name: str) -> tuple | None:
        values = [getattr(reading, name) for reading in seen if getattr(reading, name) is not None]
        return (min(values), max(values)) if values else None

    return {
        "readings": len(seen),
        "sm_mhz": span("sm_mhz"),
        "memory_mhz": span("memory_mhz"),
        "temperature_c": span("temperature_c"),
        "power_w": span("power_w"),
        "event_reasons": reasons_of(mask) if told else None,
        "slowed": bool(mask & SLOWED) if told else None,
    }
