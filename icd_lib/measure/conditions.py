"""What else happened on the machine during a measurement: other programs, stolen time, swapping, throttling."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from icd_lib.records.measured import Clocks

FEWEST_ROUNDS = 20
OTHERS_PCT, STOLEN_PCT, SWAPPED_MB = 5.0, 2.0, 1.0  # more than this is worth a warning
_CPUS = Path("/sys/devices/system/cpu")


@contextlib.contextmanager
def watched() -> Iterator[dict]:
    """Fill the dict it yields when the block ends: {"seconds", "others_pct", "stolen_pct", "swapped_mb", "throttled"}.

    others_pct  processor time of other programs, percent of all processors; stolen_pct: taken by the hypervisor
    throttled   how often a core was slowed down for heat; null where the system does not count it
    """
    before, conditions = _counters(), {}
    try:
        yield conditions
    finally:
        after = _counters()
        capacity = max(1e-9, after["total"] - before["total"])
        others = (after["busy"] - before["busy"]) - (after["own"] - before["own"])
        conditions["seconds"] = after["time"] - before["time"]
        conditions["others_pct"] = 100 * max(0.0, others) / capacity
        conditions["stolen_pct"] = 100 * (after["stolen"] - before["stolen"]) / capacity
        conditions["swapped_mb"] = (after["swapped"] - before["swapped"]) / 1e6
        known = after["throttled"] is not None and before["throttled"] is not None
        conditions["throttled"] = after["throttled"] - before["throttled"] if known else None


def warnings_of(conditions: dict, rounds: int) -> list[str]:
    """What a reader of the figures has to know; nothing on a quiet machine with enough rounds."""
    few = [f"few samples: {rounds} rounds, fewer than {FEWEST_ROUNDS}"] if rounds < FEWEST_ROUNDS else []
    return disturbances(conditions) + few


def disturbances(conditions: dict) -> list[str]:
    """What else the machine did that may have changed the figures; nothing where it was quiet."""
    warnings = []
    if conditions["others_pct"] > OTHERS_PCT:
        warnings.append(f"load: other programs took {conditions['others_pct']:.0f} % of the processors while timing")
    if conditions["stolen_pct"] > STOLEN_PCT:
        warnings.append(f"load: the host took {conditions['stolen_pct']:.0f} % of the processors away while timing")
    if conditions["swapped_mb"] > SWAPPED_MB:
        warnings.append(f"swap: {conditions['swapped_mb']:.0f} MB were swapped while timing")
    if conditions["throttled"]:
        warnings.append(f"throttling: cores were slowed down for heat {conditions['throttled']} times while timing")
    return warnings


def clocks_locked(cpus: Path = _CPUS, virtualised: bool | None = None) -> Clocks:
    """Whether the processor's clock is fixed, or why that cannot be said."""
    governor = _text(cpus / "cpu0/cpufreq/scaling_governor")
    if virtualised or governor is None:
        return Clocks(locked=False, reason="a virtual machine or a system that shows no clock governor")
    if governor != "performance":
        return Clocks(locked=False, reason=f"the clock governor is {governor!r}, not 'performance'")
    turbo = {"intel_pstate/no_turbo": "1", "cpufreq/boost": "0"}
    if not any(_text(cpus / name) == off for name, off in turbo.items()):
        return Clocks(locked=False, reason="turbo is on, clocks follow heat and load")
    return Clocks(locked=True, reason=None)


def _counters() -> dict:
    cpu, swap = psutil.cpu_times(), psutil.swap_memory()
    idle = cpu.idle + getattr(cpu, "iowait", 0.0)
    stolen = getattr(cpu, "steal", 0.0)
    total = sum(getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq")) + idle + stolen
    return {
        "time": time.perf_counter(),
        "total": total,
        "busy": total - idle - stolen,
        "stolen": stolen,
        "own": _own_seconds(),
        "swapped": swap.sin + swap.sout,
        "throttled": _throttled(),
    }


def _own_seconds() -> float:
    """Processor time of this process and of all that it started, those that ended too."""
    me, total = psutil.Process(), 0.0
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended, and is counted by whoever waited for it
            times = process.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total


def _throttled() -> int | None:
    counts = [_text(path) for path in _CPUS.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return sum(int(count) for count in counts if count is not None) if counts else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
