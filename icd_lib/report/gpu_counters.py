"""What a GPU's counters said: L2 and energy of every arm with how they were read, and the board over time."""

from icd_lib.records.counted import IDLE, BoardEnergy, BoardState, Counted, Reading
from icd_lib.report.picture import COLOURS, Picture, canvas, finish, legend, themed, title
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing, Table, badged
from icd_lib.report.words import value_text

_ON_CPU = "the models of this run were not measured on a GPU"
_TITLE = "Counters of the GPU"
_ALL_COLOUR = "#bbbbbb"


def is_on_gpu(results: Results) -> bool:
    """Whether the run's models were measured on a GPU."""
    return results.measure is not None and isinstance(results.measure.l2_hit_pct, dict)


@badged("timing", "layout")
def counters(results: Results) -> Table | DoesNotApply:
    """Per arm hits and bytes of its profiles, energy, and the board's power, clocks and heat in its windows."""
    if results.measure is None or not is_on_gpu(results):
        return DoesNotApply(_TITLE, _ON_CPU)
    energy = results.board_energy
    rows = [
        [arm, results.measure.hits_of(arm), *_profiled(results, arm), joules, *_board(energy, arm)]
        for arm, joules in results.measure.energy.items()
    ]
    columns = ["arm", "L2 hit rate", "read through L2", "read from DRAM", "kernels, profiles", "energy per token"]
    return Table(_TITLE, [*columns, "power", "SM clock", "temperature", "clock events"], rows, _note(results))


def _profiled(results: Results, arm: str) -> list:
    entry = results.counted.arms.get(arm) if results.counted else None
    if entry is None or not entry.rounds:
        return ["–", "–", "–"]
    last = entry.rounds[-1]
    passes = f", {last.passes} passes each" if last.passes else ""
    figures = entry.figures
    return [figures.get("l2_read_mb"), figures.get("dram_read_mb"), f"{last.kernels}, {len(entry.rounds)}{passes}"]


def _board(energy: BoardEnergy | None, arm: str) -> list[str]:
    state = energy.board.get(arm) if energy else None
    if state is None:
        return ["–"] * 4
    spans = (_span(state.power_w, "W"), _span(state.sm_mhz, "MHz"), _span(state.temperature_c, "°C"))
    return [*spans, _events(state)]


def _span(span: tuple | None, unit: str) -> str:
    """Least and most of what was read.

    >>> _span((1980, 1980), "MHz"), _span((41.2, 66.0), "W"), _span(None, "W")
    ('1980 MHz', '41 to 66 W', '–')
    """
    if span is None:
        return "–"
    low, high = (f"{value:.0f}" for value in span)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _events(state: BoardState) -> str:
    if state.event_reasons is None:
        return "not told"
    words = ", ".join(state.event_reasons) or "none"
    return f"{words} (held back)" if state.slowed else words


def _note(results: Results) -> str:
    """How L2 and energy were read, in words."""
    parts = []
    if counted := results.counted:
        parts.append(
            f"L2: one warm call in {counted.form} ({counted.note}) a profile, caches and clocks left alone, hits "
            f"over all reads; {_replays(counted)}"
        )
    if energy := results.board_energy:
        idle = " and ".join(value_text(item.value, "W") for item in energy.idle_w.values())
        parts.append(
            f"energy: {energy.counter}, the whole board, idle power included ({idle} before and after), "
            f"{energy.windows} interleaved windows of {energy.window_s:g} s; {energy.agreement}"
        )
        if energy.too_short:
            parts.append(f"windows of {energy.too_short}")
        if (control := energy.aa_control) and control.ci95:
            holds = control.ci95[0] <= 0 <= control.ci95[1]
            change = value_text(control.value, "fraction")
            words = "contains 0" if holds else "excludes 0: changes this small are not to be believed"
            parts.append(f"dense a second time against dense: {change}, the interval {words}")
    return "; ".join(parts)


def _replays(counted: Counted) -> str:
    """What it means for hit rates how a kernel's passes were taken, in words."""
    if any(record.replay == "kernel" for entry in counted.arms.values() for record in entry.rounds):
        return (
            "a kernel that takes several passes finds in the cache what its own earlier pass left, which can favour an "
            "arm whose kernels' data fit into it: hold the rate against the bytes from DRAM"
        )
    return "the whole program ran again for each pass"


@themed
def board_over_time(results: Results) -> Picture | Missing | DoesNotApply:
    """Power of the board over the windows of all arms and the idle ones, its clock and temperature below."""
    name = "The board while energy was measured"
    if not is_on_gpu(results):
        return DoesNotApply(name, _ON_CPU)
    readings = results.board_readings
    if not any(reading.power_w is not None for reading in readings):
        return Missing(name, "no power was read")
    drawing, axes = canvas(6.2, 3, sharex=True, height_ratios=(2, 1, 1))
    drawn = (("power_w", "power, W"), ("sm_mhz", "SM clock, MHz"), ("temperature_c", "temperature, °C"))
    phases = list(dict.fromkeys(reading.phase for reading in readings))
    for panel, (key, words) in zip(axes, drawn, strict=True):
        panel.plot(*_series(readings, key), color=_ALL_COLOUR, linewidth=0.8)
        for phase in phases:
            if phase in COLOURS:
                there = [reading for reading in readings if reading.phase == phase]
                panel.plot(*_series(there, key), ".", color=COLOURS[phase], markersize=3, label=phase)
        panel.set_ylabel(words)
        panel.grid(axis="y")
    axes[-1].set_xlabel("seconds")
    title(
        drawing, "Power, clock and temperature of the whole board; a point a reading of an arm's window, grey line: all"
    )
    legend(drawing, axes[0])
    told = ", ".join(_told(readings, phase) for phase in phases if phase in COLOURS or phase in IDLE)
    return finish(drawing, "board_power", f"Power of the board: {told}.", name, results)


def _series(readings: list[Reading], key: str) -> tuple[list[float], list[float]]:
    known = [(reading.t_s, getattr(reading, key)) for reading in readings if getattr(reading, key) is not None]
    return [t_s for t_s, _ in known], [value for _, value in known]


def _told(readings: list[Reading], phase: str) -> str:
    watts = [reading.power_w for reading in readings if reading.phase == phase and reading.power_w is not None]
    return f"{phase} {sum(watts) / len(watts):.0f} W" if watts else f"{phase} not read"
