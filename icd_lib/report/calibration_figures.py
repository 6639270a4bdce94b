"""Drawings and tables of the calibration: what C, Q and R of pilot layouts have to do with time, hits and energy."""

import textwrap

import numpy as np

from icd_lib.report.kinds import tables_only
from icd_lib.report.picture import FULL, Picture, canvas, finish, themed, title
from icd_lib.report.results import Results
from icd_lib.report.table import Missing, Table, badged
from icd_lib.report.words import number

TERMS = ("C", "Q", "R_align")
TARGETS = {
    "latency_ms": ("latency", "latency, %", 100.0),
    "l1_hit_pct": ("reads served by L1", "served by L1, pp", 1.0),
    "l2_hit_pct": ("reads served by L2 or nearer", "served by L2 or nearer, pp", 1.0),
    "energy_j": ("energy", "energy, %", 100.0),
}
KINDS = {"latency_ms": "measured", "l1_hit_pct": "simulated", "l2_hit_pct": "simulated", "energy_j": "modelled"}
TITLE = "Calibration"
NO_PILOTS = "a model's latency depends on its widths, which the curves above measure, and not on their order"


def changes(pilots: list[dict], name: str) -> np.ndarray | None:
    """Δ of every pilot against the first: of a term or a target (time and energy as fractions); None if unknown."""
    values = [pilot["targets"].get(name) if name in TARGETS else pilot[name] for pilot in pilots]
    if any(value is None for value in values):
        return None
    difference = np.array(values) - values[0]
    return difference / values[0] if name in ("latency_ms", "energy_j") else difference


@tables_only(TITLE, NO_PILOTS)
@themed
def correlations(results: Results) -> Picture | Missing:
    """C and Q of every pilot layout against its time, hits and energy, each with its correlation."""
    if not results.calibration:
        return Missing(TITLE, _why_none(results))
    pilots = results.calibration["pilots"]
    shown = {target: changes(pilots, target) for target in TARGETS}
    shown = {target: values for target, values in shown.items() if values is not None}
    drawing, axes = canvas(0.6 + 1.9 * len(shown), len(shown), 2, squeeze=False, sharex="col", sharey="row")
    told = []
    for column, term in enumerate(TERMS[:2]):
        across = changes(pilots, term)
        for panel, (target, up) in zip(axes[:, column], shown.items(), strict=True):
            scale = TARGETS[target][2]
            panel.scatter(across, scale * up, s=30, color=FULL, alpha=0.6, linewidth=0)
            panel.scatter(across[:1], scale * up[:1], s=60, color="black", marker="s")
            panel.axhline(0, color=FULL, linewidth=0.5)
            r = correlation(across, up)
            panel.set_title("does not vary" if r is None else f"r = {r:+.2f}".replace("-", "−"))
            if column == 0:
                panel.set_ylabel(textwrap.fill(f"Δ {TARGETS[target][1]}", 18) + f"\n({KINDS[target]})")
            if r is not None:
                told.append(f"{term} and {TARGETS[target][0]} r = {r:+.2f}")
        axes[-1, column].set_xlabel(f"Δ{term}")
    title(drawing, f"{len(pilots)} pilot layouts of the whole table against the original order (square)")
    alt = f"Change of C and Q of the pilot layouts against latency, hits and energy. {'; '.join(told)}."
    return finish(
        drawing, "calibration", alt, "What C and Q of a layout have to do with time, hits and energy", results
    )


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's r, None where one of the two does not vary.

    >>> correlation(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    1.0
    """
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


@badged("timing")
@tables_only("Ridge regression over the pilots", NO_PILOTS)
def fit(results: Results) -> Table | Missing:
    """R² of each target, its slopes, and the weights that follow or that were kept."""
    if not results.calibration:
        return Missing("Weights of J", _why_none(results))
    calibration = results.calibration
    rows = []
    for target, (words, _, scale) in TARGETS.items():
        r2, slopes = calibration["r2"].get(target), calibration["slopes"].get(target)
        judged = "not varied over the pilots" if r2 is None else f"R² {number(r2, decimals=2)}"
        cells = [number(scale * slopes[term], True) if slopes else "–" for term in TERMS]
        unit = "pp" if target.endswith("_hit_pct") else "%"
        rows.append([f"Δ {words}, {unit}", KINDS[target], judged, *cells])
    columns = ["target", "kind", "fit, cross-validated", *(f"per unit of Δ{term}" for term in TERMS)]
    return Table("Ridge regression over the pilots", columns, rows, verdict(results))


def verdict(results: Results) -> str:
    """Whether the weights of J were calibrated, said plainly."""
    calibration, applied = results.calibration, results.config.get("calibration", {}).get("apply", True)
    told = f"Calibration: {calibration['reason']}"
    if calibration["kept_defaults"]:
        return f"{told}."
    if not applied:
        return f"{told}; not used, the scenario keeps its weights (calibration.apply: false)."
    return f"{told}; layouts are solved with these weights."


@badged("timing")
@tables_only("Pilot layouts", NO_PILOTS)
def pilot_table(results: Results) -> Table | Missing:
    """Every pilot layout with its cost and what was found."""
    if not results.calibration:
        return Missing("Pilot layouts", _why_none(results))
    rows = [
        [
            pilot["name"],
            *(number(pilot[term]) for term in TERMS),
            *(_target(pilot["targets"], target) for target in TARGETS),
        ]
        for pilot in results.calibration["pilots"]
    ]
    columns = ["layout", *TERMS, *(f"{words} ({KINDS[target]})" for target, (words, *_) in TARGETS.items())]
    return Table(
        "Pilot layouts", columns, rows, "the whole table, seen events, all pilots interleaved; 10th percentiles"
    )


def _target(targets: dict, name: str) -> str:
    value = targets.get(name)
    if value is None:
        return "not_measured"
    if name.endswith("_hit_pct"):
        return f"{value:.1f} %"
    return f"{number(value)} ms" if name == "latency_ms" else f"{number(1e6 * value)} µJ"


def _why_none(results: Results) -> str:
    if results.graphs and not results.config.get("calibration", {}).get("pilots", 1):
        return "the scenario asks for no pilots (calibration.pilots: 0), J has its given weights"
    return "01_build_graph has not finished"
