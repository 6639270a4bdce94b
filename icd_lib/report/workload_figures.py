"""Drawings of a run on a table of rows: its rounds, what is left of the table, where reads are served, what gained."""

import textwrap

from icd_lib.report.picture import COLOURS, FULL, SCALE, SMALL, Picture, canvas, error_bar, finish, legend, themed
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing


@themed
def loop_path(results: Results, mode: str) -> Picture | Missing | DoesNotApply:
    """Every round in measured latency against ΔJ: filled accepted, open rolled back."""
    title = f"Path of {mode}"
    if mode not in results.solves:
        return Missing(title, f"02_solve[{mode}] has not finished")
    rounds = [entry for entry in results.rounds(mode) if entry.change and entry.latency_rel]
    if not rounds:
        return DoesNotApply(title, "this mode takes one step, which the table below names; only iterative has rounds")
    drawing, axes = canvas(3.4)
    for i, entry in enumerate(rounds):
        item, height = entry.latency_rel, entry.change.J
        fill = COLOURS[mode] if entry.accepted else "white"
        axes.errorbar(
            100 * item.value,
            height,
            xerr=error_bar(item, 100),
            fmt="o",
            color=COLOURS[mode],
            mfc=fill,
            capsize=4,
            ms=9,
        )
        fate = "accepted" if entry.accepted else "rolled back"
        axes.annotate(f"round {i + 1}: {fate}", (100 * item.value, height), xytext=(6, 8), textcoords="offset points")
    axes.axvline(0, color=FULL, linewidth=0.6)
    axes.axhline(0, color=FULL, linewidth=0.6)
    axes.margins(0.3, 0.35)
    axes.set(xlabel="latency against the layout before, % (trial, 95 % CI)", ylabel="change of J on W′")
    told = (
        f"round {i + 1} {'accepted' if e.accepted else 'rolled back'}: ΔJ {e.change.J:+.4f}, "
        f"latency {100 * e.latency_rel.value:+.1f} %"
        for i, e in enumerate(rounds)
    )
    return finish(drawing, f"path_{mode}", f"Rounds of {mode}. {'; '.join(told)}.", f"The path of {mode}", results)


@themed
def kept_rows(results: Results) -> Picture | Missing:
    """What is left of the table in every mode: living rows, dead ones in living tiles, dropped."""
    if not results.solves or not results.graphs:
        return Missing("Rows that are left", "no mode has been solved yet")
    size = results.graphs["rows"]["D"]
    parts = {"dense": (size, 0)}
    parts |= {m: (s.sizes.living_rows, s.sizes.dead_rows_kept) for m, s in results.solves.items()}
    drawing, axes = canvas(1.3 + 0.45 * len(parts))
    for row, (mode, (living, dead)) in enumerate(parts.items()):
        hatched = {"color": "white", "edgecolor": COLOURS[mode], "hatch": "////"}
        axes.barh(row, living, color=COLOURS[mode], height=0.62)
        axes.barh(row, dead, left=living, height=0.62, **hatched)
        axes.annotate(f" {living + dead:,}", (living + dead, row), va="center", fontsize=SMALL)
    axes.set_yticks(range(len(parts)), list(parts))
    axes.invert_yaxis()
    axes.set(xlabel="rows of the table", xlim=(0, 1.15 * size))
    drawing.legend(*_plain_legend(), loc="outside lower center", ncols=2)
    told = "; ".join(f"{mode}: {living:,} read, {dead:,} dead but kept" for mode, (living, dead) in parts.items())
    return finish(drawing, "kept_rows", f"Rows left of {size:,}. {told}.", "What is left of the table", results)


def _plain_legend() -> tuple[list, list]:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=FULL), Patch(facecolor="white", edgecolor=FULL, hatch="////")]
    return handles, ["living rows", "dead rows in a living tile"]


@themed
def cache_hits(results: Results) -> Picture | Missing:
    """Where the reads of every arm are served: a bar per arm, from the nearest cache to memory."""
    if not results.measure:
        return Missing("Simulated caches", "03_measure has not finished")
    import seaborn

    unseen = results.measure.caches["unseen"]
    keys = [key for key in next(iter(unseen.values())) if key.endswith("_hit_pct")]
    names = [key.removesuffix("_hit_pct").replace("l", "L", 1) for key in keys] + ["memory"]
    arms = list(unseen)
    drawing, axes = canvas(1.3 + 0.4 * len(arms))
    shades = seaborn.color_palette(SCALE, len(names))
    told = []
    for row, arm in enumerate(arms):
        reach = [unseen[arm][key].value for key in keys] + [100.0]
        start = 0.0
        for name, shade, end in zip(names, shades, reach, strict=True):
            label = {"label": name} if row == 0 else {}
            axes.barh(row, end - start, left=start, color=shade, height=0.66, **label)
            start = end
        told.append(f"{arm} {reach[0]:.1f} % in {names[0]}")
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set(xlabel="reads of the unseen events, % (simulated)", xlim=(0, 100))
    legend(drawing, axes, len(names))
    return finish(
        drawing,
        "cache_hits",
        f"Where reads are served, simulated: {', '.join(told)}.",
        "Where the reads of each arm are served, from empty caches (simulated); memory is the first touch of a line",
        results,
    )


@themed
def attribution(results: Results) -> Picture | Missing:
    """Latency of each masked step against linear, and of the permutation alone against dense."""
    steps = results.measure.attribution if results.measure else None
    if not steps:
        return Missing("Attribution", "the run has no measured iterative arm")
    drawing, axes = canvas(1.0 + 0.5 * len(steps))
    for row, step in enumerate(steps):
        item = step.latency_rel
        axes.barh(row, 100 * item.value, color=COLOURS.get(step.arm, FULL), height=0.62)
        axes.errorbar(100 * item.value, row, xerr=error_bar(item, 100), fmt="none", color="black", capsize=3)
    axes.axvline(0, color=FULL, linewidth=0.8)
    axes.set_yticks(range(len(steps)), [textwrap.fill(step.step, 22) for step in steps])
    axes.invert_yaxis()
    axes.set_xlabel("latency against dense, % (95 % CI)\nchained reads of unseen events")
    told = ", ".join(f"{step.step} {100 * step.latency_rel.value:+.1f} %" for step in steps)
    return finish(drawing, "attribution", f"Latency after each step: {told}.", "What the gain is made of", results)
