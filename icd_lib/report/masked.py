"""What came masked: how much of it left, and what cannot leave. Shown only of runs whose model comes with a mask."""

import numpy as np

from icd_lib.axes.kinds import KINDS
from icd_lib.report.picture import COLOURS, FULL, LIMIT, Picture, canvas, finish, legend, themed, title
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing, Table, badged
from icd_lib.report.words import value_text

FILE = "graph/masked.json"
TITLE = "What the mask made dead, and what cannot leave"
_OTHER = DoesNotApply("A mask that came with the model", "this run chooses itself what is removed")


@badged("model")
def removable(results: Results) -> Table | Missing | DoesNotApply:
    """Per axis: alive, dead, what leaves, and the zeros that stay with the solver's and the least share of tiles."""
    if "masked" not in results.config:
        return _OTHER
    found = results.read(FILE)
    if not found:
        return Missing("What the mask made dead", "01_build_graph has not finished")
    rows = [
        [
            entry["axis"],
            f"{entry['size']:,}",
            f"{entry['size'] - entry['dead']:,}",
            f"{entry['dead']:,}",
            f"{entry['size'] - entry['kept_stored']:,}",
            f"{entry['size'] - entry['kept']:,}",
            *(_share(entry.get(key)) for key in ("zeros", "left", "now", "solved", "least")),
        ]
        for entry in found["axes"]
    ]
    columns = ["axis", "elements", "alive", "dead", "leave in the stored order", "leave once gathered"]
    columns += ["weights that are zero", "zero in what stays", "tiles touched now", "as the solver orders", "at least"]
    return Table(TITLE, columns, rows, note_of(found))


def note_of(found: dict) -> str:
    """What the columns of the table count."""
    return (
        f"counted; FFN neurons and inner channels leave in tiles of {found['tile']}, others one by one. Last: the "
        "share of tiles that a row of the matrices reads anything of; no order of the axis undercuts the last, a "
        "proven bound, and a kernel in tiles touches them all. –: hardly any zero is left, or the axis is one tile"
    )


@themed
def dead_and_alive(results: Results) -> Picture | Missing | DoesNotApply:
    """Of every axis the shares that are alive, leave, and stay dead; below, the tiles that scattered zeros touch."""
    if "masked" not in results.config:
        return _OTHER
    found = results.read(FILE)
    if not found:
        return Missing("What the mask made dead", "01_build_graph has not finished")
    axes, bounded = found["axes"], [entry for entry in found["axes"] if entry.get("least") is not None]
    rows = 1 + bool(bounded)
    heights = [0.5 + 0.24 * len(axes), 0.5 + 0.24 * len(bounded)][:rows]
    drawing, panels = canvas(1.2 + sum(heights), rows, squeeze=False, height_ratios=heights)
    _draw_shares(panels[0, 0], axes)
    if bounded:
        _draw_bounds(panels[1, 0], bounded)
    title(drawing, "What the mask made dead, and the zeros that stay")
    return finish(drawing, "masked", " ".join(lines(results)), TITLE, results)


def _draw_shares(panel, axes: list[dict]) -> None:
    size = np.array([entry["size"] for entry in axes])
    alive = np.array([entry["size"] - entry["dead"] for entry in axes]) / size
    left = np.array([entry["kept"] for entry in axes]) / size
    places = np.arange(len(axes))
    panel.barh(places, 100 * alive, color=FULL, label="alive")
    panel.barh(places, 100 * (left - alive), left=100 * alive, color=COLOURS["oneshot"], label="dead, fills a tile")
    panel.barh(places, 100 * (1 - left), left=100 * left, color=COLOURS["iterative"], label="dead, leaves")
    stored = 100 * np.array([entry["kept_stored"] for entry in axes]) / size
    panel.plot(stored, places, "|", color=LIMIT, markersize=11, label="left in the stored order")
    panel.set_yticks(places, [entry["axis"] for entry in axes])
    panel.invert_yaxis()
    panel.set(xlabel="share of the axis, %", xlim=(0, 101))
    legend(panel.figure, panel, 2)


def _draw_bounds(panel, axes: list[dict]) -> None:
    places = np.arange(len(axes))
    for key, marker, colour, label in (
        ("now", "s", FULL, "now"),
        ("solved", "o", COLOURS["iterative"], "as the solver orders"),
        ("least", "|", LIMIT, "no order does with less"),
    ):
        panel.plot([100 * entry[key] for entry in axes], places, marker, color=colour, label=label)
    panel.set_yticks(places, [entry["axis"] for entry in axes])
    panel.invert_yaxis()
    panel.set(xlabel="tiles touched in spite of the zeros that stay, %", xlim=(0, 101))
    panel.legend(loc="lower left")


def lines(results: Results) -> list[str]:
    """In sentences: what is dead and leaves, by kind of axis, and what stays."""
    found = results.read(FILE) if "masked" in results.config else None
    if not found:
        return []
    told = []
    for kind in dict.fromkeys(entry["kind"] for entry in found["axes"]):
        axes, keys = [one for one in found["axes"] if one["kind"] == kind], ("size", "dead", "kept", "kept_stored")
        size, dead, kept, stored = (sum(entry[key] for entry in axes) for key in keys)
        if dead:
            told.append(
                f"Of {size:,} {KINDS[kind].words} {dead:,} are dead in the given model: {size - kept:,} leave once "
                f"they are gathered, {size - stored:,} in the stored order."
            )
    if not told:
        told.append("No element of the given model is dead, so nothing can be removed from it.")
    return told + _cannot_leave(found)


def _cannot_leave(found: dict) -> list[str]:
    bounded = [entry for entry in found["axes"] if entry.get("least") is not None]
    if not bounded:
        return []
    left, solved, least = (_share(float(np.mean([one[key] for one in bounded]))) for key in ("left", "solved", "least"))
    return [
        f"Zeros that cannot leave: {left} of the weights along {_axes(bounded)} are zero one by one; the best order "
        f"found still touches {solved} of their tiles of {found['tile']}, and none touches less than {least}."
    ]


def _axes(entries: list[dict]) -> str:
    return entries[0]["axis"] if len(entries) == 1 else f"{entries[0]['axis']} to {entries[-1]['axis']}"


def _share(value: float | None) -> str:
    return "–" if value is None else value_text(value, "fraction", signed=False)
