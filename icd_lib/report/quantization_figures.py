"""Drawings of what the quantization did: which Linear hurts, and which channels stick out, before and in π′."""

import numpy as np

from icd_lib.report.picture import COLOURS, Picture, canvas, finish, legend, themed
from icd_lib.report.results import Results
from icd_lib.report.table import Missing
from icd_lib.transforms.effects import Groups, TransformMeta

SHOWN = ("iterative", "linear", "oneshot")


def quantization_of(results: Results) -> tuple[str, TransformMeta] | None:
    """The first mode, of those a run has, that was quantised, and what the transform did there."""
    for mode in SHOWN:
        if mode not in results.solves:
            continue
        record = results.read(f"{mode}/transform_meta.json")
        done = record.get("transforms") or [record["last_transform"]]
        for entry in done:
            if entry is not None and entry["name"] == "quantization":
                return mode, TransformMeta.from_json(entry)
    return None


@themed
def linear_errors(results: Results) -> Picture | Missing:
    """Per Linear: what rounding it alone does to the network's output, and the error of its own output."""
    found = quantization_of(results)
    if found is None or not found[1].notes.get("linears"):
        return Missing("Rounding, Linear by Linear", "no mode was accepted with rounded inputs")
    linears = found[1].notes["linears"]
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
def channel_ranges(results: Results) -> Picture | Missing:
    """Half-widths of an FFN's channels in stored order and in π′, what stays float marked."""
    found = quantization_of(results)
    effects = [item for item in found[1].axes.values() if isinstance(item, Groups)] if found else []
    if found is None or not effects:
        return Missing("Ranges of channels", "no mode was accepted with rounded FFN inputs")
    mode, effect = found[0], max(effects, key=lambda item: float(np.max(item.saliency) / np.median(item.saliency)))
    # The effect is in the order before the re-permutation, which packs what stays float.
    packed = effect.packed(np.arange(effect.size)) if mode == "iterative" else np.arange(effect.size)
    drawing, panels = canvas(4.6, 2, 1, sharex=True)
    layouts = {"before the layout was solved again": np.arange(effect.size), f"in {mode}'s layout": packed}
    for panel, (label, order) in zip(panels, layouts.items(), strict=True):
        left = effect.groups[order] > 0
        places = np.arange(effect.size)
        panel.vlines(places, 0, effect.saliency[order], color=COLOURS["dense"], linewidth=0.6)
        panel.vlines(places[left], 0, effect.saliency[order][left], color=COLOURS["unrounded"], linewidth=0.9)
        panel.set_ylabel("half range")
        panel.set_title(f"{effect.axis}, {label}")
    panels[-1].set_xlabel("neuron")
    count = int((effect.groups > 0).sum())
    alt = f"Ranges of the {effect.size} neurons of {effect.axis}; {count} stay float."
    return finish(drawing, "quantization_ranges", alt, "How far an FFN's neurons reach, and which stay float.", results)
