"""Drawings of what 01_build_graph and 02_solve know about axes: W, width curves, sensitivity, prediction."""

import numpy as np
import scipy.sparse as sp

from icd_lib.axes.kinds import KINDS
from icd_lib.report.kinds import models_only
from icd_lib.report.picture import (
    COLOURS,
    FULL,
    MARKERS,
    SCALE,
    SMALL,
    Picture,
    canvas,
    error_bar,
    finish,
    legend,
    themed,
    title,
)
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing

BINS = 128
MOST_BARS = 4096
NO_LAYERS = "a table of rows has no layers; the calibration below says what a layout costs"
KIND_NAMES = {name: kind.words for name, kind in KINDS.items()}
KIND_COLOURS = {"ffn": "#000000", "heads": "#882255", "inner": "#000000", "state": "#882255"}  # none of the arms'


def binned(graph, perm: np.ndarray, bins: int = BINS) -> np.ndarray:
    """W in the order `perm` as a dense (bins, bins) array of summed weights; element i lies in bin pos(i)·bins // D."""
    coo = graph.tocoo()
    size = graph.shape[0]
    bins = min(bins, size)
    place = np.empty(size, dtype=np.int64)
    place[perm] = np.arange(size) * bins // size
    flat = np.bincount(place[coo.row] * bins + place[coo.col], weights=coo.data, minlength=bins * bins)
    return flat.reshape(bins, bins)


def read_graph(results: Results, rel: str) -> sp.csr_array:
    """A stored W as CSR."""
    from icd_lib.storage.npz import load_graph

    return load_graph(results.dir / rel)


def layouts_of(results: Results, mode: str | None, axis: str) -> list[tuple[str, sp.csr_array, np.ndarray]]:
    """(title, W, order) for each layout that the run has of an axis."""
    dense = read_graph(results, f"graph/W.{axis}.npz")
    layouts = [("W, original order", dense, np.arange(dense.shape[0]))]
    if mode not in results.solves:
        return layouts
    perms = {
        name: np.array(results.read(f"{mode}/{name}.json")["axes"][axis]["pi"])
        for name in ("perm_before", "perm_after")
    }
    masked = read_graph(results, f"{mode}/W.{axis}.npz")
    kept = results.solves[mode].widths[axis]
    return [
        *layouts,
        ("W, layout π₀", dense, perms["perm_before"]),
        ("W′ after the transform, π₀", masked, perms["perm_before"]),
        (_last_title(kept, dense.shape[0]), masked, perms["perm_after"]),
    ]


def _last_title(kept: int, size: int) -> str:
    return f"W′, layout π₁ ({kept} of {size} kept)" if size < 10_000 else f"W′, layout π₁ ({kept:,} kept)"


def _summed(degree: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions and bytes of at most `MOST_BARS` bars."""
    together = -(-len(degree) // MOST_BARS)
    starts = np.arange(0, len(degree), together)
    return starts + together / 2, np.add.reduceat(degree, starts)


@themed
def access_graph(results: Results, axis: str | None = None, mode: str | None = "iterative") -> Picture | Missing:
    """Heat maps of an axis' access graph in the original order and the mode's layouts, its degree by position below."""
    if not results.graphs:
        return Missing("Access graph", "01_build_graph has not finished")
    axis = axis or most_pruned(results, mode)
    layouts = layouts_of(results, mode, axis)
    across, down = min(len(layouts), 2), -(-len(layouts) // 2)
    drawing, axes = canvas(0.9 + 3.4 * down, 2 * down, across, squeeze=False, height_ratios=[3, 1] * down, sharex=True)
    images = [binned(graph, perm) for _, graph, perm in layouts]
    positive = np.concatenate([image[image > 0] for image in images])
    limits = {"vmin": np.log10(np.percentile(positive, 5)), "vmax": np.log10(positive.max())}
    in_bytes = results.graphs[axis].get("unit", "bytes") == "bytes"
    unit, scale = (", kB", 1e3) if results.is_table else (", MB", 1e6)
    what = "bytes" if in_bytes else "weight"
    if not in_bytes:
        unit, scale = "", 1.0
    tallest = 0.0
    for place, ((name, graph, perm), image) in enumerate(zip(layouts, images, strict=True)):
        row, column, size = 2 * (place // across), place % across, graph.shape[0]
        square, below = axes[row, column], axes[row + 1, column]
        style = {"cmap": SCALE, "aspect": "auto", "interpolation": "nearest", "extent": (0, size, size, 0)}
        with np.errstate(divide="ignore"):
            shown = square.imshow(np.log10(image), **style, **limits)
        square.set_facecolor("white")
        square.set_title(name)
        places, degree = _summed(np.asarray(graph.sum(axis=1)).ravel()[perm])
        below.fill_between(places, degree / scale, step="mid", color=FULL, alpha=0.8)
        below.set_xlim(0, size)
        tallest = max(tallest, degree.max() / scale)
        if column == 0:
            square.set_ylabel("position")
            below.set_ylabel(f"degree{unit}")
        else:
            square.tick_params(labelleft=False)
            below.tick_params(labelleft=False)
    for panel in axes[1::2].ravel():
        panel.set_ylim(0, 1.05 * tallest or None)
    for panel in axes[-1]:
        panel.set_xlabel(f"position in {axis}")
    label = f"log₁₀ {what} per cell (white: none)"
    drawing.colorbar(shown, ax=axes.ravel().tolist(), location="bottom", label=label, aspect=45, pad=0.02)
    name = f"access_graph_{mode or 'dense'}_{axis.replace('.', '_')}"
    alt = (
        f"Heat maps of the access graph of {axis}: " + "; ".join(title for title, *_ in layouts) + ". "
        "Bright cells are elements that are touched together often; white cells are never touched together."
    )
    caption = f"Access graph of {axis} ({mode or 'dense'}): bytes touched together by two elements, and their degree"
    return finish(drawing, name, alt, caption, results)


def most_pruned(results: Results, mode: str | None) -> str:
    """The tiled axis of which the mode keeps the smallest share; the first one where nothing was removed."""
    tiled = tuple(name for name, kind in KINDS.items() if kind.tiled)
    wide = [axis for axis in results.graphs if axis.startswith(tiled)] or list(results.graphs)
    widths = results.solves[mode].widths if mode in results.solves else {}
    return min(wide, key=lambda axis: widths.get(axis, 0) / results.graphs[axis]["D"])


@models_only("Width → latency", NO_LAYERS)
@themed
def width_curves(results: Results) -> Picture | Missing:
    """Measured latency of the whole model against the kept width of every layer."""
    if not results.tables:
        return Missing("Width → latency", "01_build_graph has not finished")
    if reason := results.tables.get("reason"):
        return DoesNotApply("Width → latency", reason)
    drawing, axes = canvas(3.6)
    for (kind, curve), marker in zip(results.tables["curves"].items(), "os^D", strict=False):
        kept = np.array(curve["kept"]) / max(curve["kept"])
        colour = KIND_COLOURS.get(kind, FULL)
        axes.plot(kept * 100, curve["model_ms"], marker=marker, color=colour, label=KIND_NAMES.get(kind, kind))
    axes.axhline(results.tables["dense_ms"], color=FULL, linestyle=":", label="dense")
    batch, length = results.tables["shape"]
    axes.set(xlabel="kept in every layer, %", ylabel="latency of the whole model, ms", ylim=(0, None))
    title(drawing, f"What width costs on this machine (batch {batch} × {length} tokens)")
    axes.legend()
    ends = "; ".join(
        f"{KIND_NAMES.get(kind, kind)} from {curve['model_ms'][-1]:.1f} to {curve['model_ms'][0]:.1f} ms"
        for kind, curve in results.tables["curves"].items()
    )
    return finish(
        drawing, "width_curves", f"Measured latency from full to least width: {ends}.", "Width → latency", results
    )


@models_only("Sensitivity map", "removing a row changes no output but its own")
@themed
def sensitivity_map(results: Results) -> Picture | Missing:
    """Layer × axis heat maps: error of the output when one block alone is pruned, and per unit of its own loss."""
    if reason := nothing_to_choose(results):
        return DoesNotApply("Sensitivity map", reason)
    if not results.sensitivity:
        return Missing("Sensitivity map", "01_build_graph has not finished")
    kinds = sorted({entry["kind"] for entry in results.sensitivity})
    layers = sorted({int(entry["axis"].partition(".")[2]) for entry in results.sensitivity})
    import seaborn

    drawing, axes = canvas(1.2 + 0.34 * len(layers), 1, 2, sharey=True)
    titles = {
        "output_error": "relative error\nof the output",
        "rate": "output error per unit\nof the block's loss",
    }
    labels = [_probe_label(results, kind) for kind in kinds]
    for panel, (key, words) in zip(axes, titles.items(), strict=True):
        grid = np.full((len(layers), len(kinds)), np.nan)
        for entry in results.sensitivity:
            row, column = layers.index(int(entry["axis"].partition(".")[2])), kinds.index(entry["kind"])
            grid[row, column] = entry[key]
        style = {"cmap": SCALE, "vmin": 0, "vmax": 1, "cbar": False, "annot_kws": {"fontsize": SMALL}}
        names = {"xticklabels": labels, "yticklabels": [f"layer {layer}" for layer in layers]}
        seaborn.heatmap(grid / np.nanmax(grid, axis=0), annot=grid, fmt=".3g", ax=panel, **style, **names)
        panel.set_title(words)
        panel.tick_params(axis="x", rotation=0, bottom=False)
        panel.tick_params(axis="y", rotation=0, left=False)
    worst = max(results.sensitivity, key=lambda entry: entry["output_error"])
    alt = f"Sensitivity of each layer and axis. {worst['axis']} hurts most: output error {worst['output_error']:.3g}."
    return finish(drawing, "sensitivity", alt, "Which layer and axis hurts (brighter is worse, per column)", results)


def nothing_to_choose(results: Results) -> str | None:
    """Why the run predicts nothing, where no strength is chosen."""
    return (results.prediction or {}).get("reason")


def _probe_label(results: Results, kind: str) -> str:
    kept = next(entry["probe_kept"] for entry in results.sensitivity if entry["kind"] == kind)
    return f"{KIND_NAMES.get(kind, kind)}".replace(" ", "\n") + f",\n{kept} kept"


@models_only("Predicted frontier", "there is no quality to trade; the calibration predicts, see 04_validate")
@themed
def predicted_frontier(results: Results) -> Picture | Missing:
    """Modelled output error against modelled latency, uneven and uniform, before the model is touched."""
    if reason := nothing_to_choose(results):
        return DoesNotApply("Prediction", reason)
    if not results.prediction:
        return Missing("Prediction", "01_build_graph has not finished")
    drawing, axes = canvas(3.6)
    styles = {
        "uneven": ("o-", COLOURS["iterative"], "uneven, from the tables"),
        "uniform": ("D--", COLOURS["oneshot"], "one rate"),
    }
    reached = {}
    for name, (style, colour, label) in styles.items():
        points = [
            (100 * entry["latency_rel"], entry[name]["output_error"])
            for entry in results.prediction["frontier"]
            if "output_error" in entry[name]
        ]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=colour, label=label, markersize=4)
            reached[name] = min(points)[0]
    axes.set(xlabel="predicted latency against dense, %", ylabel="predicted output error")
    title(drawing, "Prediction before anything is changed (modelled)")
    axes.legend()
    ends = ", ".join(f"{name} to {end:+.0f} %" for name, end in reached.items())
    return finish(
        drawing, "prediction", f"Predicted output error against latency: {ends}.", "Predicted frontier", results
    )


@themed
def predicted_and_measured(results: Results) -> Picture | Missing:
    """Predicted beside measured latency of every mode."""
    if not results.verdict or not results.verdict.prediction:
        waits = not results.verdict
        return Missing("Predicted and measured", "04_validate has not finished" if waits else "nothing was calibrated")
    entries = results.verdict.prediction
    drawing, axes = canvas(1.5 + 0.55 * len(entries))
    words = []
    for row, (mode, entry) in enumerate(entries.items()):
        colour, measured = COLOURS[mode], entry.measured
        label = {"predicted": "predicted", "measured": "measured, 95 % CI"} if row == 0 else {}
        predicted = 100 * entry.predicted_latency_rel
        axes.plot(predicted, row, "D", mfc="white", color=colour, label=label.get("predicted"), markersize=8)
        axes.errorbar(
            100 * measured.value,
            row,
            xerr=error_bar(measured, 100),
            fmt=MARKERS.get(mode, "o"),
            color=colour,
            capsize=4,
            label=label.get("measured"),
        )
        words.append(f"{mode} predicted {predicted:+.1f} %, measured {100 * measured.value:+.1f} %")
    axes.axvline(0, color=FULL, linewidth=0.8)
    names = {"permuted": "whole table\nin layout π₀"} if results.is_table else {}
    axes.set_yticks(range(len(entries)), [names.get(mode, mode) for mode in entries])
    axes.set(xlabel="latency against dense, %", ylim=(len(entries) - 0.5, -0.5))
    legend(drawing, axes, 2)
    return finish(drawing, "predicted_measured", "; ".join(words) + ".", "Predicted beside measured", results)
