"""A finished drawing with the words that replace it, and the one palette of all drawings."""

import io
from dataclasses import dataclass

from matplotlib.figure import Figure

from icd_lib.report.results import Results

# Okabe & Ito 2008, distinguishable with every common colour blindness; one colour per arm, everywhere.
COLOURS = {
    "dense": "#555555",
    "linear": "#0072B2",
    "oneshot": "#E69F00",
    "iterative": "#009E73",
    "placebo": "#CC79A7",
    "same_transform": "#56B4E9",
    "dense_again": "#999999",
    "permuted": "#B5A642",
    "unrounded": "#D55E00",
    "masked": "#882255",
    "packed": "#332288",
}
# Tol 2021, "high contrast": told apart with every common colour blindness, and in grey.
SPLIT_COLOURS = {"unseen": "#004488", "seen": "#BB5566"}
MARKERS = {"dense": "s", "linear": "^", "oneshot": "D", "iterative": "o"}
FULL = "#444444"
LIMIT = "#D55E00"
DPI = 110


@dataclass(frozen=True)
class Picture:
    """A PNG with its name (the file's stem), alt text and a caption."""

    name: str
    png: bytes
    alt: str
    caption: str

    def _repr_png_(self) -> tuple[bytes, dict]:
        return self.png, {"alt": self.alt}

    def __repr__(self) -> str:
        return f"{self.caption} ({self.alt})"


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple:
    """(figure, axes) without pyplot's global state; `width` and `height` in inches."""
    drawing = Figure(figsize=(width, height), layout="constrained")
    return drawing, drawing.subplots(rows, columns, **options)


def finish(drawing: Figure, name: str, alt: str, caption: str, results: Results) -> Picture:
    """Render a drawing; the run's badges stand on it, so that it keeps them when it is copied elsewhere."""
    for axes in drawing.axes:
        axes.spines[["top", "right"]].set_visible(False)
    if results.badges:
        short = "; ".join(text.partition(":")[0] for text in results.badges)
        drawing.supxlabel(short, fontsize=8, color="#8a6100", x=0.99, ha="right")
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return Picture(name, buffer.getvalue(), alt, caption)


def error_bar(item: dict, scale: float = 1.0) -> list[list[float]] | None:
    """A figure's interval as matplotlib's xerr or yerr, None without one."""
    if not item.get("ci95"):
        return None
    low, high = item["ci95"]
    return [[max(0.0, (item["value"] - low) * scale)], [max(0.0, (high - item["value"]) * scale)]]
