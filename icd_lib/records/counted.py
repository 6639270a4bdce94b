"""measure/ncu.json and measure/energy.json: what a GPU's counters said of the arms, and how they were read."""

from dataclasses import dataclass, field

from icd_lib.metric import Figure

NCU = "measure/ncu.json"
ENERGY = "measure/energy.json"
POWER = "measure/power.csv"  # the readings of the board while energy was measured


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
    """The board over a phase: (least, most) of what was read, and why its clocks were what they were."""

    readings: int
    sm_mhz: tuple[int, ...] | None = None
    memory_mhz: tuple[int, ...] | None = None
    temperature_c: tuple[int, ...] | None = None
    power_w: tuple[float, ...] | None = None
    event_reasons: list[str] = field(default_factory=list)
    slowed: bool = False


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
