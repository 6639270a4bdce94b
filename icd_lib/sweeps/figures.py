"""Drawings of a sweep: the frontier of every setting, and what each factor does by itself."""

import textwrap
from collections.abc import Callable

from icd_lib.experiment.arms import MODES
from icd_lib.metric import Figure
from icd_lib.report.picture import (
    COLOURS,
    FULL,
    MARKERS,
    SMALL,
    Picture,
    canvas,
    error_bar,
    legend,
    png_bytes,
    stamp,
    themed,
    title,
)
from icd_lib.report.table import Missing
from icd_lib.report.words import value_text
from icd_lib.sweeps.effects import Effect
from icd_lib.sweeps.outcome import Setting
from icd_lib.sweeps.result import Row, SweepResult

_COSTS: dict[str, tuple[str, Callable[[Row], Figure | None], float]] = {
    "latency": ("latency, ms", lambda row: row.figures.latency_ms, 1.0),
    "size": ("parameters, MB", lambda row: None, 1e-6),
    "energy": ("energy, mJ a token", lambda row: row.figures.energy_j_per_token, 1e3),
}
_LACKING = {"latency": "a latency", "size": "a size and a quality", "energy": "an energy and a quality"}
_FAINT = 0.25
_WIDE = 62  # characters of a small line above a panel
_NAMED = 12  # points with a number in the drawing; more would cover each other
_TOLD = 40  # points that a drawing's text names
_DRAWN = 40  # effects in a drawing that still fits a page


def setting_words(result: SweepResult, setting: Setting) -> str:
    """A setting for people: model, calls, machine and runtime."""
    parts = [setting.model, setting.shape.replace("x", " × "), result.machine(setting), setting.runtime]
    return ", ".join(filter(None, parts))


@themed
def frontier_picture(result: SweepResult, cost: str, quick: bool = False) -> Picture | Missing:
    """Every arm of every point, a panel a setting; what is on the frontier is full and joined, all else faint."""
    words, item_of, scale = _COSTS[cost]
    name = f"Pareto frontier, {cost}"
    settings = [setting for setting in result.settings if result.candidates(setting, cost)]
    if cost != "latency":  # without quality, size is against itself, and so would energy stand beside it alone
        settings = [setting for setting in settings if result.is_judged(setting)]
    if not settings:
        return Missing(name, f"no finished point has {_LACKING[cost]}")
    on = result.pareto(cost)
    full = {row.key for row in on}
    drawing, axes = canvas(0.8 + 3.0 * len(settings), len(settings), squeeze=False)
    for panel, setting in zip(axes[:, 0], settings, strict=True):
        pairs = result.candidates(setting, cost)
        judged = result.is_judged(setting)
        for arm in MODES:
            for is_full in (False, True):
                drawn = [pair for pair in pairs if pair[0].arm == arm and (pair[0].key in full) == is_full]
                _points(panel, drawn, item_of, (scale, 1.0 if judged else 1e-6), arm, 1.0 if is_full else _FAINT)
        _join(panel, [(row, costs) for row, costs in pairs if row.key in full], scale, judged)
        if judged:
            panel.axhline(0, color=FULL, linewidth=0.6)
        panel.set(xlabel=words, ylabel="own quality lost, pp" if judged else "parameters, MB")
        panel.set_title(textwrap.fill(setting_words(result, setting), _WIDE), fontsize=SMALL)
    there = {row.arm for row in result.rows}
    for arm in (arm for arm in MODES if arm in there):
        axes[0, 0].plot([], [], MARKERS[arm], color=COLOURS[arm], label=arm)
    title(drawing, "Full: no other point is as good in both and better in one; faint: beaten. Numbers as in the table")
    legend(drawing, axes[0, 0])
    if quick:
        stamp(drawing, "quick run: figures are rough")
    told = "; ".join(f"{row.number} {row.arm}" for row in on[:_TOLD]) or "none"
    told += f"; {len(on) - _TOLD:,} more" if len(on) > _TOLD else ""
    alt = f"{name}: {len(result.rows)} arms of {result.count('done')} finished points; on the frontier: {told}."
    return Picture(f"frontier_{cost}", png_bytes(drawing), alt, f"{words[0].upper()}{words[1:]}, against what is lost")


def _points(panel, pairs: list, item_of: Callable, scales: tuple[float, float], arm: str, alpha: float) -> None:
    """Some arms with their intervals, in one go: a sweep may have tens of thousands."""
    if not pairs:
        return
    items = [(item_of(row), row.figures.quality_drop_pp) for row, _ in pairs]
    xerr, yerr = (_bars([both[side] for both in items], scale) for side, scale in enumerate(scales))
    x, y = ([costs[side] * scale for _, costs in pairs] for side, scale in enumerate(scales))
    style = {"fmt": MARKERS[arm], "color": COLOURS[arm], "alpha": alpha, "elinewidth": 0.8}
    panel.errorbar(x, y, xerr=xerr, yerr=yerr, **style)


def _bars(items: list[Figure | None], scale: float) -> list[list[float]] | None:
    """Intervals of several figures as matplotlib's xerr or yerr, of no length where there is none."""
    bars = [error_bar(item, scale) if item is not None and item.value is not None else None for item in items]
    if not any(bars):
        return None
    return [[bar[side][0] if bar else 0.0 for bar in bars] for side in (0, 1)]


def _join(panel, on: list, scale: float, judged: bool) -> None:
    """A line along the frontier, and the number of each point beside it."""
    places = sorted((x * scale, y if judged else y * 1e-6, row.number) for row, (x, y) in on)
    panel.plot([x for x, _, _ in places], [y for _, y, _ in places], color=FULL, linewidth=0.8, zorder=0)
    for x, y, number in places[:_NAMED]:
        panel.annotate(str(number), (x, y), textcoords="offset points", xytext=(5, 4), fontsize=SMALL)


@themed
def effects_picture(effects: list[Effect], quick: bool = False) -> Picture | Missing:
    """Every level against its factor's first: change of latency, and quality lost beside it, with intervals."""
    drawn = [effect for effect in effects if not effect.latency.is_missing or not effect.quality_drop_pp.is_missing]
    if not drawn:
        return Missing("Main effects", "no two finished points differ in one factor alone")
    drawn = drawn[-_DRAWN:]
    names = [f"{effect.factor.rpartition('.')[2]}: {effect.level} vs {effect.against}" for effect in drawn]
    sides = [
        ("change of latency, %", [effect.latency for effect in drawn], 100.0),
        ("quality lost more, pp", [effect.quality_drop_pp for effect in drawn], 1.0),
    ]
    sides = [side for side in sides if any(not item.is_missing for item in side[1])]
    drawing, axes = canvas(0.8 + len(sides) * (0.9 + 0.3 * len(drawn)), len(sides), squeeze=False)
    for panel, (label, items, scale) in zip(axes[:, 0], sides, strict=True):
        for place, item in enumerate(items):
            if item.value is not None:
                bar = {"xerr": error_bar(item, scale), "fmt": "o", "capsize": 4, "color": COLOURS["iterative"]}
                panel.errorbar(item.value * scale, place, **bar)
        panel.axvline(0, color=FULL, linewidth=0.8)
        panel.set_xlabel(label)
        panel.grid(axis="x")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)
    title(drawing, "What a factor does by itself: mean over pairs that differ in nothing else, 95 % interval")
    if quick:
        stamp(drawing, "quick run: figures are rough")
    told = "; ".join(f"{name} {_told(effect)}" for name, effect in zip(names, drawn, strict=True))
    return Picture("effects", png_bytes(drawing), f"Main effects. {told}.", "Main effects of the factors")


def _told(effect: Effect) -> str:
    parts = [
        f"{words} {value_text(item.value, item.unit)}"
        for words, item in (("latency", effect.latency), ("quality lost", effect.quality_drop_pp))
        if item.value is not None
    ]
    return ", ".join(parts)
