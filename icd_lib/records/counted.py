"""measure/ncu.json, energy.json and power.csv: what a GPU's counters said of the arms, and how they were read."""

import csv
import io
from dataclasses import astuple, dataclass, field, fields

from icd_lib.metric import Figure

NCU = "measure/ncu.json"
ENERGY = "measure/energy.json"
POWER = "measure/power.csv"  # the readings of the board while energy was measured
IDLE = ("idle before", "idle after")  # phases of the board beside those of arms
LEAST_WINDOW_S = 5.0  # of energy: NVML's counter moves every 0.1 s or so, a fiftieth of it
AGREE_REL = 0.10  # counter and power samples apart by more are named; NVML averages power over up to a second


@dataclass(frozen=True, kw_only=True)
class NcuRecord:
    """What ncu read of one program, and how.

    metrics: "l2_hit_pct", "l2_read_mb", "dram_read_mb"; kernels: how many were profiled
    passes: the most that any kernel took; None where ncu does not say
    replay: what is run again for each pass, "kernel" or "application"
    command: the call that took the report, files and programs by their names alone
    """

    metrics: dict[str, Figure]
    kernels: int
    passes: int | None
    replay: str
    cache_control: str
    clock_control: str
    version: str | None
    command: list[str]


@dataclass(frozen=True, kw_only=True)
class CountedArm:
    """One arm's profiles and, metric by metric, the mean over them; `reason` says why there are none."""

    figures: dict[str, Figure] = field(default_factory=dict)
    rounds: list[NcuRecord] = field(default_factory=list)
    reason: str | None = None

    @property
    def hit_pct(self) -> list[float]:
        """The L2 hit rate of each profile."""
        return [float(record.metrics["l2_hit_pct"].value or 0.0) for record in self.rounds]


@dataclass(frozen=True, kw_only=True)
class Counted:
    """All of ncu.json. form: the runtime that was profiled; note: how it differs from the one that is timed.

    narrow_pp: half an interval after which an arm is not profiled again; warm_calls: before the counted one
    """

    form: str
    note: str
    narrow_pp: float
    warm_calls: int
    arms: dict[str, CountedArm]


@dataclass(frozen=True, kw_only=True)
class BoardState:
    """The board over a phase: (least, most) of what was read, and why its clocks were what they were.

    slowed: whether one of the reasons holds the board back. Both are None where the driver does not tell.
    """

    readings: int
    sm_mhz: tuple[int, ...] | None = None
    memory_mhz: tuple[int, ...] | None = None
    temperature_c: tuple[int, ...] | None = None
    power_w: tuple[float, ...] | None = None
    event_reasons: list[str] | None = None
    slowed: bool | None = None


@dataclass(frozen=True, kw_only=True)
class BoardEnergy:
    """All of energy.json: how energy was read; what was read stands in measure.json.

    integrated_rel: energy of the power samples relative to the counter's, less 1, in all windows; None without samples
    aa_control: the dense model a second time against itself; None where that was not measured
    """

    counter: str
    windows: int
    window_s: float
    settle_s: float
    idle_w: dict[str, Figure]
    integrated_rel: float | None
    board: dict[str, BoardState]
    aa_control: Figure | None = None

    @property
    def warnings(self) -> list[str]:
        """What pages warn of: arms in whose windows the board was held back."""
        held = [phase for phase, state in self.board.items() if state.slowed and phase not in IDLE]
        words = "power, heat or its hardware held its clocks back while energy was measured"
        return [f"GPU slowed down: {words} ({', '.join(held)})"] if held else []

    @property
    def too_short(self) -> str | None:
        """What is wrong with short windows, in words; None where they are long enough."""
        if self.window_s >= LEAST_WINDOW_S:
            return None
        return f"less than {LEAST_WINDOW_S:g} s, for trying things out: the counter moves every 0.1 s or so"

    @property
    def agreement(self) -> str:
        """How the integrated power samples compare with the counter, in words."""
        if self.integrated_rel is None:
            return "its driver gives no power samples to check it by"
        words = f"its power samples give {100 * self.integrated_rel:+.1f} %"
        far = abs(self.integrated_rel) > AGREE_REL
        return f"{words}, more than {AGREE_REL:.0%} apart: believe neither blindly" if far else words


@dataclass(frozen=True)
class Reading:
    """One look at the board; None for what its driver does not tell. `event_reasons` is NVML's bit mask."""

    t_s: float
    phase: str
    power_w: float | None
    energy_j: float | None
    sm_mhz: int | None
    memory_mhz: int | None
    temperature_c: int | None
    event_reasons: int | None


def as_csv(readings: list[Reading]) -> str:
    """The readings as a table with a head; an empty cell where the driver told nothing."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([field.name for field in fields(Reading)])
    table.writerows(astuple(reading) for reading in readings)
    return text.getvalue()


def from_csv(text: str) -> list[Reading]:
    """What `as_csv` wrote; ValueError for another table."""
    names = [field.name for field in fields(Reading)]
    table = csv.reader(io.StringIO(text))
    if (head := next(table, None)) != names:
        raise ValueError(f"expected the columns {', '.join(names)}, got {head}")
    return [_reading(row) for row in table]


def _reading(row: list[str]) -> Reading:
    t_s, phase, power_w, energy_j, *whole = row
    watts, joules = (float(cell) if cell else None for cell in (power_w, energy_j))
    sm_mhz, memory_mhz, temperature_c, event_reasons = (int(cell) if cell else None for cell in whole)
    return Reading(float(t_s), phase, watts, joules, sm_mhz, memory_mhz, temperature_c, event_reasons)
