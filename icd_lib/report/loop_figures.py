"""Drawings of the loop: its path, and what every layer kept."""

import numpy as np

from icd_lib.records.attempts import Attempt
from icd_lib.report import workload_figures
from icd_lib.report.graph_figures import KIND_NAMES
from icd_lib.report.kinds import for_tables
from icd_lib.report.picture import COLOURS, FULL, LIMIT, SMALL, Picture, canvas, finish, legend, themed, title
from icd_lib.report.results import Results
from icd_lib.report.table import Missing

_PANELS = {"drop": "lost where strengths are chosen, pp (± SE)", "J": "change of J by re-permutation"}


@for_tables(workload_figures.loop_path)
@themed
def loop_path(results: Results, mode: str) -> Picture | Missing:
    """Every draft and attempt in predicted latency against what it lost and, where layouts changed, against ΔJ."""
    if mode not in results.solves:
        return Missing(f"Path of {mode}", f"02_solve[{mode}] has not finished")
    attempts = [(i + 1, e) for i, e in enumerate(results.attempts(mode)) if e.validation]
    if not attempts:
        return Missing(f"Path of {mode}", "no attempt got as far as a candidate model")
    panels = [what for what in _PANELS if any(_height(e, what) is not None for _, e in attempts)]
    if not panels:
        return Missing(f"Path of {mode}", attempts[0][1].validation.reason)
    drawing, axes = canvas(0.7 + 3.2 * len(panels), len(panels), squeeze=False)
    for panel, what in zip(axes[:, 0], panels, strict=True):
        _draw_path(panel, [(i, e, _height(e, what)) for i, e in attempts if _height(e, what) is not None], what, mode)
    if results.budget_pp is not None and panels[0] == "drop":
        axes[0, 0].axhline(results.budget_pp, color=LIMIT, linestyle="--", label=f"budget {results.budget_pp:g} pp")
        axes[0, 0].legend(loc="best")
    title(drawing, f"Attempts of {mode}: filled accepted, open rolled back, small: drafts")
    told = (f"{_name(e)} {i} at {100 * e.predicted_latency_rel:+.1f} %: {_fate(e)}" for i, e in attempts)
    return finish(drawing, f"path_{mode}", f"Attempts of {mode}. {'; '.join(told)}.", f"The path of {mode}", results)


def _draw_path(panel, points: list[tuple[int, Attempt, float]], what: str, mode: str) -> None:
    """Points (number, entry, height): whole attempts large and joined in their order, drafts small and light."""
    colour, whole = COLOURS[mode], [(e, y) for _, e, y in points if not e.is_draft]
    panel.plot([100 * e.predicted_latency_rel for e, _ in whole], [y for _, y in whole], ":", color=colour)
    middle = 100 * float(np.mean([entry.predicted_latency_rel for _, entry, _ in points]))
    for i, entry, y in points:
        x, small = 100 * entry.predicted_latency_rel, entry.is_draft
        style = {"ms": 5, "alpha": 0.6, "capsize": 2} if small else {"ms": 9, "capsize": 4}
        fill = colour if entry.accepted else "white"
        error = entry.validation.se_pp if what == "drop" else None
        panel.errorbar(x, y, yerr=error, fmt="o", color=colour, mfc=fill, **style)
        told = f"draft {i}" if small else f"{i} {_fate(entry)}".replace(": ", ":\n")
        panel.annotate(told, (x, y), color=FULL if small else "black", **_beside(x, middle, small))
    panel.margins(0.25, 0.25)
    panel.set(xlabel="predicted latency against dense, %", ylabel=_PANELS[what])
    panel.axhline(0, color=FULL, linewidth=0.6)


def _name(entry: Attempt) -> str:
    return "draft" if entry.is_draft else "attempt"


def _beside(x: float, middle: float, small: bool) -> dict:
    """Where a label goes: right of points in the left half, left of the others, those of drafts below the point."""
    side = -1 if x > middle else 1
    return {
        "xytext": (11 * side, -16 if small else 8),
        "textcoords": "offset points",
        "fontsize": SMALL,
        "ha": "right" if side < 0 else "left",
        "bbox": {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    }


def _height(entry: Attempt, what: str) -> float | None:
    if what == "drop":
        return entry.validation.drop_pp if entry.validation.is_judged else None
    return entry.change.J if entry.change else None


def _fate(entry: Attempt) -> str:
    """One or two words for why an attempt was not kept.

    >>> from icd_lib.records.reasons import Reason
    >>> reasons = Reason("quality", "it loses 1.9 pp", 1.9, 0.1), Reason("cosine", "it is far from dense")
    >>> _fate(Attempt(what="attempt", strength=-0.3, accepted=False, reasons=reasons))
    'rolled back: quality, cosine'
    """
    if entry.accepted:
        return "accepted"
    codes = dict.fromkeys(reason.code for reason in entry.reasons if reason.code)
    return "rolled back" + (f": {', '.join(codes)}" if codes else "")


@for_tables(workload_figures.kept_rows)
@themed
def kept_widths(results: Results) -> Picture | Missing:
    """Kept width of every layer, FFN and heads, one bar per mode."""
    if not results.solves or not results.graphs:
        return Missing("Kept widths", "no mode has been solved yet")
    kinds = list(dict.fromkeys(axis.partition(".")[0] for axis in results.graphs))
    kinds.sort()
    drawing, axes = canvas(0.4 + 2.6 * len(kinds), len(kinds), squeeze=False)
    total = {}
    for panel, kind in zip(axes[:, 0], kinds, strict=True):
        names = [axis for axis in results.graphs if axis.startswith(f"{kind}.")]
        full = np.array([results.graphs[axis]["D"] for axis in names])
        places, width = np.arange(len(names)), 0.8 / len(results.solves)
        for i, (mode, solve) in enumerate(results.solves.items()):
            kept = np.array([solve.widths[axis] for axis in names])
            total[mode, kind] = kept.sum() / full.sum()
            panel.bar(places + (i + 0.5) * width - 0.4, kept, width * 0.92, color=COLOURS[mode], label=mode)
        panel.hlines(full, places - 0.45, places + 0.45, color=FULL, label="dense")
        panel.set_xticks(places, [axis.partition(".")[2] for axis in names])
        panel.set(xlabel="layer", ylabel=f"{KIND_NAMES.get(kind, kind)} kept", ylim=(0, full.max() * 1.05))
    legend(drawing, axes[0, 0], 4)
    told = "; ".join(
        f"{mode} keeps {share:.0%} of the {KIND_NAMES.get(kind, kind)}" for (mode, kind), share in total.items()
    )
    return finish(drawing, "kept_widths", f"Kept width per layer. {told}.", "What every layer kept", results)
