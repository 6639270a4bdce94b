"""Drawings of weights rounded in groups: each matrix's error, and what the order of its columns was worth."""

import numpy as np

from icd_lib.report.picture import COLOURS, MARKERS, Picture, canvas, finish, legend, themed, title
from icd_lib.report.quantization_figures import SHOWN, quantization_of, rounds_weights_alone
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing

_OTHER = DoesNotApply("Weights in groups", "this run rounds inputs too, or no weights at all")
_MEAN_BITS = "quantization.mean_bits"
_ORDERS = {  # of `Held.orders`, and the words and colour of each
    "nearest": ("to nearest points, no order", COLOURS["dense"]),
    "random": ("random order", COLOURS["placebo"]),
    "stored": ("order as the checkpoint has it", COLOURS["linear"]),
    "folded": ("order of activity, folded into the axes", COLOURS["iterative"]),
    "descending": ("order of activity of each matrix alone, with a gather", COLOURS["oneshot"]),
}


def weights_of(results: Results) -> dict[str, dict] | Missing | DoesNotApply:
    """Mode → linears, what its file says of every matrix that was rounded in groups."""
    if not rounds_weights_alone(results):
        return _OTHER
    found = {}
    for mode in SHOWN:
        entry = quantization_of(results, (mode,))
        if entry is not None and entry[1]["notes"].get("linears"):
            found[mode] = entry[1]["notes"]["linears"]
    return found or Missing("Weights in groups", "no mode was accepted with rounded weights")


@themed
def matrix_errors(results: Results) -> Picture | Missing | DoesNotApply:
    """Per layer: error of every matrix's output, of each mode, the kinds of matrices one below the other."""
    found = weights_of(results)
    if not isinstance(found, dict):
        return found
    kinds = list(dict.fromkeys(name.rpartition(".")[2] for linears in found.values() for name in linears))
    drawing, panels = canvas(1.0 + 1.25 * len(kinds), len(kinds), squeeze=False, sharex=True)
    for panel, kind in zip(panels[:, 0], kinds, strict=True):
        for mode, linears in found.items():
            errors = [entry["error"] for name, entry in linears.items() if name.endswith(f".{kind}")]
            panel.plot(errors, marker=MARKERS[mode], markersize=3, color=COLOURS[mode], label=mode)
        panel.set(yscale="log", ylabel=kind)
    panels[-1, 0].set_xlabel("layer")
    title(drawing, "Squared error of a matrix's output, relative to its energy")
    legend(drawing, panels[0, 0], columns=len(found))
    worst, entry = max(next(iter(found.values())).items(), key=lambda item: item[1]["error"])
    alt = f"Relative squared error of every matrix; that of {worst} is the largest, {entry['error']:.2g}."
    return finish(drawing, "weights_errors", alt, "What rounding did to every matrix, measured.", results)


@themed
def order_errors(results: Results) -> Picture | Missing | DoesNotApply:
    """Matrices of the middle layer: errors by the order in which their columns were rounded."""
    found = weights_of(results)
    if not isinstance(found, dict):
        return found
    tried = {name: entry for name, entry in found.get("iterative", {}).items() if entry.get("orders")}
    if not tried:
        return Missing("Error by order", "iterative was not accepted, or in no order of the evidence")
    drawing, panel = canvas(1.2 + 0.75 * len(tried))
    places, height = np.arange(len(tried)), 0.8 / len(_ORDERS)
    for row, (order, (words, colour)) in enumerate(_ORDERS.items()):
        errors = [{**entry["orders"], "folded": entry["error"]}[order] for entry in tried.values()]
        panel.barh(places + (row - 2) * height, errors, height, color=colour, label=words)
    panel.set_yticks(places, [name.rpartition(".")[2] for name in tried])
    panel.invert_yaxis()
    panel.set(xscale="log", xlabel="squared error, relative to the output's energy")
    layer = next(part for part in next(iter(tried)).split(".") if part.isdigit())
    title(drawing, f"Layer {layer}: error by the order of the columns")
    legend(drawing, panel, columns=1)
    return finish(drawing, "weights_orders", " ".join(lines(results)), "What the order is worth, measured.", results)


@themed
def bits_tried(results: Results) -> Picture | Missing | DoesNotApply:
    """Every attempt on the ladder of bits: what it lost where strengths are chosen, kept or not."""
    if not (results.lock["config"].get("quantization") or {}).get("bits_ladder"):
        return DoesNotApply("Bits that were tried", "the scenario gives one mean_bits, and no ladder")
    tried = [
        (mode, entry.setting[_MEAN_BITS], entry)
        for mode in results.solves
        for entry in results.attempts(mode)
        if entry.setting and entry.validation and entry.validation.is_judged
    ]
    if not tried:
        return Missing("Bits that were tried", "no attempt of the ladder was judged")
    drawing, panel = canvas(3.0)
    for mode in dict.fromkeys(mode for mode, _, _ in tried):
        points = [(bits, entry) for name, bits, entry in tried if name == mode]
        for bits, entry in points:
            face = COLOURS[mode] if entry.accepted else "none"
            panel.plot(bits, entry.validation.drop_pp, marker=MARKERS[mode], color=COLOURS[mode], markerfacecolor=face)
        panel.plot([], [], marker=MARKERS[mode], color=COLOURS[mode], linestyle="none", label=mode)
    panel.set(xlabel="mean bits per weight, scales included", ylabel="quality lost, pp")
    title(drawing, "Bits that were tried (filled: kept)")
    legend(drawing, panel)
    told = (f"{mode} at {bits:g}: {entry.fate}" for mode, bits, entry in tried)
    return finish(drawing, "weights_bits", "; ".join(told), "Judged on the text that chooses.", results)


def lines(results: Results) -> list[str]:
    """In a sentence: what the folded order did in the middle layer."""
    found = weights_of(results)
    tried = [e for e in found.get("iterative", {}).values() if e.get("orders")] if isinstance(found, dict) else []
    if not tried:
        return []
    ratios = [
        np.exp(np.mean([np.log(entry["error"] / entry["orders"][order]) for entry in tried]))
        for order in ("stored", "nearest")
    ]
    return [
        f"In the middle layer the folded order leaves {ratios[0]:.2f} of the error that the checkpoint's order leaves, "
        f"and {ratios[1]:.2f} of that of rounding to nearest points (geometric mean of {len(tried)} matrices)."
    ]
