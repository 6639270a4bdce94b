"""The compiler bridge on the pages: what compiling took, what the passes did, and the IR before and after them."""

from dataclasses import dataclass
from html import escape

from icd_lib.records.bridge import BRIDGED, Bridged, Compiled
from icd_lib.report.results import Results
from icd_lib.report.table import STYLE, DoesNotApply, Table
from icd_lib.storage.record_json import from_json

OFF = "the compiler bridge was off (bridge.enable)"
_SHOWN = 12  # lines of a pass's log in the table; the file has all
_WHEN = {"before": "as imported", "after": "after the passes"}


@dataclass(frozen=True)
class Listings:
    """Title → text of any length, each folded, as text: a browser's own search finds what is in it and unfolds it."""

    texts: dict[str, str]

    def to_html(self) -> str:
        heads = {title: f"{escape(title)} ({len(text.splitlines())} lines)" for title, text in self.texts.items()}
        return "\n".join(
            f"<details><summary>{heads[title]}</summary><pre>{escape(text)}</pre></details>"
            for title, text in self.texts.items()
        )

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="icd">{self.to_html()}</div>'


def bridged(results: Results) -> Bridged | None:
    """What the run has of the bridge; None where it was off."""
    found = results.read(BRIDGED)
    return None if found is None else from_json(Bridged, found, BRIDGED)


def compiled_table(results: Results) -> Table | DoesNotApply:
    """Runtime, arm and shape: seconds, memory, gathers at run time."""
    found = bridged(results)
    if found is None:
        return DoesNotApply("Compiled", OFF)
    rows = [
        [
            engine,
            arm,
            item.shape,
            f"{item.seconds.get('lower', 0):.1f} s",
            f"{sum(item.seconds.values()):.1f} s",
            f"{item.peak_memory_mb:.0f} MB",
            item.gathers.get("permutations", 0),
            item.gathers.get("lookups", 0),
        ]
        for engine, arm, item in _entries(found)
    ]
    columns = ["compiler", "arm", "shape", "compiling", "with export and import", "peak memory"]
    note = (
        "gathers at run time, counted on the IR after the passes: a layout costs nothing where none is of an activation"
    )
    return Table("Compiled", [*columns, "gathers of activations", "table lookups"], rows, note)


def passes_table(results: Results) -> Table | DoesNotApply:
    """What every pass did with iterative's first artifact."""
    found = bridged(results)
    if found is None:
        return DoesNotApply("Passes of the bridge", OFF)
    rows = []
    for engine, arm, item in _entries(found):
        if item.before:
            for name, log in item.passes.items():
                more = f"; and {len(log) - _SHOWN} more" if len(log) > _SHOWN else ""
                rows.append([engine, arm, name, len(log), "; ".join(log[:_SHOWN]) + more or "nothing to do"])
    offered = "tiles were offered" if found.tiles else "tiles were not offered (bridge.tiles)"
    return Table("Passes of the bridge", ["compiler", "arm", "pass", "changes", "what it did"], rows, offered)


def listings(results: Results) -> Listings | DoesNotApply:
    """The IR of iterative's first artifact, before and after the passes, without weights."""
    texts = {
        f"{engine}, {arm}, {item.shape}: IR {words}": getattr(item, when)
        for engine, arm, item in _entries(bridged(results))
        for when, words in _WHEN.items()
        if getattr(item, when)
    }
    return Listings(texts) if texts else DoesNotApply("Intermediate representation", OFF)


def _entries(found: Bridged | None) -> list[tuple[str, str, Compiled]]:
    compiled = {} if found is None else found.compiled
    return [(engine, arm, item) for engine, arms in compiled.items() for arm, items in arms.items() for item in items]
