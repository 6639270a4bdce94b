"""Drawings of what the quantization did: which Linear hurts, and which channels stick out, before and in π′."""

import numpy as np

from icd_lib.report.picture import COLOURS, Picture, canvas, finish, legend, themed
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing

SHOWN = ("iterative", "linear", "oneshot")
_ALONE = DoesNotApply("Rounding", "weights alone are rounded, in groups")
_ELSEWHERE = DoesNotApply("Rounding", "the run is not deployed in the precision that the quantization is for")


def is_elsewhere(results: Results) -> bool:
    """Whether the scenario quantises in a precision only in which this run is not deployed."""
    only = (results.config.get("quantization") or {}).get("only_in")
    return only is not None and results.deploy is not None and results.deploy.precision != only


def rounds_weights_alone(results: Results) -> bool:
    """Whether inputs stay as they are."""
    return (results.config.get("quantization") or {}).get("precision", "").endswith("_weights")


def not_drawn(results: Results) -> DoesNotApply | None:
    """Why figures of rounded inputs are none of this run's."""
    if rounds_weights_alone(results):
        return _ALONE
    return _ELSEWHERE if is_elsewhere(results) else None


def quantization_of(results: Results, modes: tuple[str, ...] = SHOWN) -> tuple[str, dict] | None:
    """The first mode, of those a run has, that was quantised, and what its file says of the transform."""
    for mode in modes:
        if mode not in results.solves:
            continue
        record = results.read(f"{mode}/transform_meta.json") or {}
        done = record.get("transforms") or [record.get("last_transform")]  # the last alone: older runs
        for entry in done:
            if entry is not None and entry["name"] == "quantization":
                return mode, entry
    return None


@themed
def linear_errors(results: Results) -> Picture | Missing | DoesNotApply:
    """Per Linear: what rounding it alone does to the network's output, and the error of its own output."""
    if (other := not_drawn(results)) is not None:
        return other
    found = quantization_of(results)
    if found is None or not found[1]["notes"].get("linears"):
        return Missing("Rounding, Linear by Linear", "no mode was accepted with rounded inputs")
    linears = found[1]["notes"]["linears"]
    names = [name.partition("layer.")[2] or name for name in linears]
    drawing, panel = canvas(0.9 + 0.17 * len(names))
    places = np.arange(len(names))
    for key, label, colour, marker in (
        ("alone", "network's output, it alone rounded plainly", COLOURS["unrounded"], "o"),
        ("error", "its own output, as it was rounded", COLOURS["iterative"], "s"),
    ):
        values = [entry[key] for entry in linears.values()]
        panel.plot(values, places, marker, color=colour, label=label, markersize=4)
    panel.set_yticks(places, names)
    panel.invert_yaxis()
    panel.set_xscale("log")
    panel.set_xlabel("squared error, relative to the output's energy")
    legend(drawing, panel, columns=1)
    worst = max(linears, key=lambda name: linears[name]["alone"] or 0.0)
    alt = f"Relative squared error per Linear; rounded alone, {worst} hurts most."
    return finish(drawing, "quantization_errors", alt, "What rounding every Linear does, measured.", results)


@themed
def channel_ranges(results: Results) -> Picture | Missing | DoesNotApply:
    """Half-widths of an FFN's channels before and after the layout was solved again, what stays float marked."""
    if (other := not_drawn(results)) is not None:
        return other
    found = quantization_of(results)
    axes = [entry for entry in found[1]["axes"] if "groups" in entry] if found else []
    if found is None or not axes:
        return Missing("Ranges of channels", "no mode was accepted with rounded FFN inputs")
    mode = found[0]
    entry = max(axes, key=lambda axis: float(np.max(axis["saliency"]) / np.median(axis["saliency"])))
    groups = np.array(entry["groups"])
    widths = np.broadcast_to(entry["saliency"], groups.shape)
    before = np.arange(len(widths))
    after = gathered(groups) if mode == "iterative" else before
    drawing, panels = canvas(4.6, 2, 1, sharex=True)
    layouts = {"before the layout was solved again": before, f"in {mode}'s layout": after}
    for panel, (label, order) in zip(panels, layouts.items(), strict=True):
        left = groups[order] > 0
        panel.vlines(before, 0, widths[order], color=COLOURS["dense"], linewidth=0.6)
        panel.vlines(before[left], 0, widths[order][left], color=COLOURS["unrounded"], linewidth=0.9)
        panel.set_ylabel("half range")
        panel.set_title(f"{entry['axis']}, {label}")
    panels[-1].set_xlabel("neuron")
    alt = f"Ranges of the {len(widths)} neurons of {entry['axis']}; {int((groups > 0).sum())} stay float."
    return finish(drawing, "quantization_ranges", alt, "How far an FFN's neurons reach, and which stay float.", results)


def gathered(groups: np.ndarray) -> np.ndarray:
    """The order in which every group lies together, groups by the mean of their places.

    >>> gathered(np.array([1, 0, 1, 0, 0])).tolist()
    [0, 2, 1, 3, 4]
    """
    parts = [np.flatnonzero(groups == number) for number in np.unique(groups)]
    return np.concatenate(sorted(parts, key=lambda part: float(part.mean())))
