"""A finished drawing with the words that replace it, and the one theme and palette of all drawings.

Drawings are as wide as a phone can show: panels stand below each other, no text is smaller than `SMALL`.
"""

import functools
import io
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib import figure, rc_context

from icd_lib.metric import Figure
from icd_lib.report.results import Results

# Okabe & Ito 2008 and Tol 2021, told apart with every common colour blindness; one colour per arm, everywhere.
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
LIMIT = "#000000"  # dashed
SCALE = "cividis"  # of what has an order: the same to colour-blind eyes, and lighter is more in grey too

WIDTH = 5.5  # inches: on a page of 360 pixels, 9 points are then 7.6 of them
SMALL, MEDIUM = 9.0, 10.5  # points
DPI = 170
SHOWN_PX = 640  # width on a large screen
_LINE = 64  # characters of medium text in the width


@dataclass(frozen=True)
class Picture:
    """A PNG with its name (the file's stem), alt text and a caption."""

    name: str
    png: bytes
    alt: str
    caption: str

    def _repr_png_(self) -> tuple[bytes, dict]:
        return self.png, {"alt": self.alt, "width": SHOWN_PX}

    def __repr__(self) -> str:
        return f"{self.caption} ({self.alt})"


@functools.cache
def theme() -> dict:
    """Matplotlib's settings for every drawing: seaborn's, with one font and sizes for small screens."""
    import seaborn

    sizes = dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SMALL)
    sizes |= dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "figure.titlesize"), MEDIUM)
    widths = {"axes.linewidth": 0.8, "lines.linewidth": 1.8, "lines.markersize": 6, "grid.linewidth": 0.6}
    ours = {"font.sans-serif": ["DejaVu Sans"], "grid.color": "#d9dee2", "legend.frameon": False}
    bare = {"axes.spines.top": False, "axes.spines.right": False}
    return {**seaborn.axes_style("ticks"), **seaborn.plotting_context("paper"), **sizes, **widths, **ours, **bare}


def themed(draw: Callable) -> Callable:
    """Decorate what draws: it does so in the theme, and the settings of the caller stay as they were."""

    @functools.wraps(draw)
    def drawn(*given, **named):
        with rc_context(theme()):
            return draw(*given, **named)

    return drawn


def canvas(height: float, rows: int = 1, columns: int = 1, **options) -> tuple:
    """(figure, axes) of the one width, without pyplot's global state; `height` in inches."""
    drawing = figure.Figure(figsize=(WIDTH, height), layout="constrained")
    return drawing, drawing.subplots(rows, columns, **options)


def title(drawing: figure.Figure, text: str) -> None:
    """A title over the whole drawing, in as many lines as it needs."""
    drawing.suptitle(textwrap.fill(text, _LINE))


def legend(drawing: figure.Figure, panel, columns: int = 3) -> None:
    """One legend below the whole drawing, of what is labelled in `panel`."""
    drawing.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def stamp(drawing: figure.Figure, text: str) -> None:
    """Small words along the right edge, in a strip of their own: titles lie above the panels and legends below."""
    lines = textwrap.wrap(text, max(16, int(12 * drawing.get_figheight())))
    strip = len(lines) * 1.6 * SMALL / 72 / WIDTH
    drawing.get_layout_engine().set(rect=(0, 0, 1 - strip, 1))
    words = {"rotation": "vertical", "ha": "right", "va": "center", "fontsize": SMALL, "color": "#8a6100"}
    drawing.text(0.998, 0.5, "\n".join(lines), **words).set_in_layout(False)


def finish(drawing: figure.Figure, name: str, alt: str, caption: str, results: Results) -> Picture:
    """Render a drawing; the run's badges stand on it, so that it keeps them when it is copied elsewhere."""
    if results.badges:
        stamp(drawing, "; ".join(text.partition(":")[0] for text in results.badges))
    return Picture(name, png_bytes(drawing), alt, caption)


def png_bytes(drawing: figure.Figure) -> bytes:
    """A drawing as PNG; the same drawing gives the same bytes."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def error_bar(item: Figure, scale: float = 1.0) -> list[list[float]] | None:
    """A figure's interval as matplotlib's xerr or yerr, None without one."""
    if item.ci95 is None:
        return None
    low, high = item.ci95
    return [[max(0.0, (item.value - low) * scale)], [max(0.0, (high - item.value) * scale)]]
