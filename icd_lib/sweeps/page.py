"""index.html of a sweep: which points there are, which to take, and what each factor does. Opens offline."""

from html import escape
from pathlib import Path

from icd_lib.metric import Figure
from icd_lib.report.html import link, links, page, show
from icd_lib.report.table import Badges, Table
from icd_lib.report.words import bytes_text, figure_html, value_text
from icd_lib.sweeps.effects import Effect
from icd_lib.sweeps.figures import setting_words
from icd_lib.sweeps.interactions import Interaction
from icd_lib.sweeps.outcome import STATUS_WORDS
from icd_lib.sweeps.result import Row, SweepResult

NOTEBOOK = "06_sweep"
MOST_POINTS = 1000  # rows of the table of points: report.csv has all, and a phone opens the page
MOST_EFFECTS = 60
_CLASS = {"done": "pass", "failed": "fail"}
_STYLE = """<style>
details.card{margin:.5rem 0;padding:.6rem .9rem}details.card b{display:inline;font-size:1.05rem}
.icd .sortable td{min-width:0}.icd .sortable td:nth-child(2){min-width:9rem}
.icd .sortable th{white-space:nowrap!important}
@media (max-width:40rem){.icd td{min-width:4.6rem}.icd th,.icd td{padding-right:.5em}}
</style>"""
# Without it the table is as it was written, in the order of the sweep.
_SORT = """<script>
document.querySelectorAll("table.sortable th[data-column]").forEach(head => {
  const sort = () => {
    const body = head.closest("table").tBodies[0], column = +head.dataset.column;
    const up = head.getAttribute("aria-sort") !== "ascending";
    head.parentNode.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column].dataset.sort;
    const order = (a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
      const one = Number(key(a)), two = Number(key(b));
      const found = isNaN(one) || isNaN(two) ? key(a).localeCompare(key(b)) : one - two;
      return up ? found : -found;
    };
    [...body.rows].sort(order).forEach(row => body.append(row));
  };
  head.tabIndex = 0;
  head.style.cursor = "pointer";
  head.title = "sort";
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
});
</script>"""


def sweep_page(result: SweepResult, drawn: list, tables: list[Table], expected: tuple[str, ...] = ()) -> str:
    """The page; `drawn`: pictures and what is missing of them; tables: of the effects; expected: files that will be."""
    planned = result.planned
    counts = {status: result.count(status) for status in STATUS_WORDS}
    told = ", ".join(f"{count} {STATUS_WORDS[status]}" for status, count in counts.items() if count)
    parts = [
        _STYLE,
        f"<h1>{escape(planned.sweep)}: {len(planned.points)} points</h1>",
        f'<p class="lead"><strong>{escape(told)}</strong></p>',
        _merged(result),
        _documents(result, expected),
        "<h2>Take one of these</h2>",
        *_take(result),
        "<h2>What is faster or smaller, and what it loses</h2>",
        *map(show, drawn),
        "<h2>What each factor does</h2>",
        *map(show, tables),
        "<h2>The points</h2>",
        points_table(result),
        _SORT,
    ]
    badges = ["quick run: figures are rough"] if planned.quick else []
    badges += [f"{counts['failed']} failed"] if counts["failed"] else []
    return page(f"ICD sweep: {planned.sweep}", "\n".join(parts), Badges(badges))


def _merged(result: SweepResult) -> str:
    twins = [(point.name, point.merged) for point in result.planned.points if point.merged]
    if not twins:
        return ""
    rows = "".join(f"<li>{escape(name)} stands for {escape(', '.join(more))} too</li>" for name, more in twins)
    return f"<p>Points that would have been the same run were merged:</p><ul>{rows}</ul>"


def _documents(result: SweepResult, expected: tuple[str, ...]) -> str:
    rels = [f"{NOTEBOOK}.html", f"{NOTEBOOK}.ipynb", "report.csv", "effects.json", "sweep.json", "points.jsonl"]
    there = [rel for rel in rels if rel in expected or (result.dir / rel).is_file()]
    return links([(rel, rel) for rel in there]) if there else ""


def _take(result: SweepResult) -> list[str]:
    """The frontier of every setting as a list: what a point gives, its page and its command."""
    on = result.pareto()
    if not result.rows:
        return ["<p>No point has finished.</p>"]
    parts = []
    for setting in result.settings:
        rows = [row for row in on if row.where.setting == setting]
        parts.append(f"<h3>{escape(setting_words(result, setting))}</h3>")
        if not rows:
            parts.append("<p>No point here is faster than dense, or its latency was not measured.</p>")
        parts += [_one(row, result.dir / row.point) for row in sorted(rows, key=_latency)]
    return parts


def _one(row: Row, folder: Path) -> str:
    numbered = f"{row.number}. {row.point}"
    name = link(f"{row.point}/index.html", numbered) if _has_page(folder) else escape(numbered)
    there = f"its model is in <code>{escape(row.point)}/{escape(row.arm)}/model</code>, or make it again"
    lies = there if any((folder / row.arm / "model").glob("*.safetensors")) else "make it again"
    cells = ", ".join(
        f"{words} {figure_html(item)}"
        for words, item in (
            ("latency", row.figures.latency_ms),
            ("against dense", row.figures.latency_vs_dense),
            ("quality lost on the budget's text", row.figures.quality_drop_pp),
            ("on the other kind of text", row.figures.other_drop_pp),
        )
    )
    size = _size(row.figures.parameter_bytes)
    return (
        f'<details class="card"><summary><b>{name}</b> <span>{escape(row.arm)}, {escape(row.where.runtime)} '
        f"{escape(size)}: {escape(_in_short(row))}</span></summary><div>{cells}</div><p>Take this one: {lies}:</p>"
        f"<pre>{escape(row.command)}</pre></details>"
    )


def _in_short(row: Row) -> str:
    """What a point gives and loses, before its card is opened: the values alone."""
    figures = (
        ("against dense", row.figures.latency_vs_dense),
        ("lost", row.figures.quality_drop_pp),
        ("lost on the other kind of text", row.figures.other_drop_pp),
    )
    told = [f"{value_text(item.value, item.unit)} {words}" for words, item in figures if item.value is not None]
    return ", ".join(told) or "nothing was measured"


def _size(count: int) -> str:
    """Megabytes, or kilobytes of what has next to none."""
    return bytes_text(count) if count >= 1e5 else f"{count / 1e3:.1f} kB"


def _latency(row: Row) -> float:
    return row.figures.latency_ms.value or 0.0


def effects_table(effects: list[Effect]) -> Table:
    """Every level against its factor's first one."""
    rows: list[list] = [
        [
            f"{_leaf(effect.factor)}: {effect.level} vs {effect.against}",
            effect.latency,
            effect.quality_drop_pp,
            effect.size,
        ]
        for effect in effects[-MOST_EFFECTS:]
    ]
    note = (
        "Means over pairs of points of one machine that differ in nothing else (iterative; the last lines: iterative "
        "against the other arms of the same point). The interval is Student's t over the pairs: it tells how far the "
        "effect differs from pair to pair. Ratios are geometric means. Scenarios, which have models, tasks and text of "
        "their own, are compared in size alone."
    )
    if len(effects) > MOST_EFFECTS:
        note += f" The last {MOST_EFFECTS} of {len(effects):,}."
    if not rows:
        note = "The sweep has no factor with two levels."
    return _measured("Main effects", rows, note)


def interactions_table(found: list[Interaction]) -> Table:
    """Whether the effect of a level depends on another factor; those whose interval leaves out 0 come first."""
    ordered = sorted(found, key=lambda item: not item.is_clear)
    rows: list[list] = [
        [
            f"{_leaf(item.factor)}: {item.level} vs {item.first}, at {_leaf(item.other)}: {item.other_level} "
            f"instead of {item.other_first}",
            item.latency,
            item.quality_drop_pp,
            item.size,
        ]
        for item in ordered[:MOST_EFFECTS]
    ]
    note = (
        "Whether what a level does depends on another factor: its effect at the other's further level, less its effect "
        "at the other's first one (iterative). 0: it does the same at both. Of latency and size it is the ratio of the "
        "two ratios, less 1, so +10 % means that the level leaves 10 % more there. Means over quadruples of points of "
        "one machine that differ in nothing but these two factors, with Student's interval over the quadruples; a "
        "single quadruple (n = 1) has no interval and cannot be told from noise. Of twenty intervals one leaves out 0 "
        "by chance. Of two scenarios, whose quality is judged by different tasks and text, the loss has none."
    )
    if len(found) > MOST_EFFECTS:
        note += f" {MOST_EFFECTS} of {len(found):,}: first those whose interval of latency or quality leaves out 0."
    if not rows:
        note = "No four finished points form a quadruple: two levels of one factor, each at two levels of another."
    return _measured("Interactions", rows, note)


def _measured(title: str, rows: list[list], note: str) -> Table:
    """The table without the figures that no row has: a table of rows has no quality, and a phone little room."""
    names = ["effect", "latency", "quality lost more", "size"]
    kept = [0, *(i for i in (1, 2, 3) if not rows or any(not row[i].is_missing for row in rows))]
    left_out = [name for i, name in enumerate(names) if i not in kept]
    told = f" Not measured anywhere: {', '.join(left_out)}." if left_out else ""
    return Table(title, [names[i] for i in kept], [[row[i] for i in kept] for row in rows], note + told)


def _leaf(factor: str) -> str:
    return factor.rpartition(".")[2]


_LOST = ("lost, budget's text", "lost, other text")


def points_table(result: SweepResult) -> str:
    """Every point, sortable where scripts run."""
    on = {row.point for row in result.pareto()}
    factors = list(result.planned.factors)
    lost = _LOST if any(result.is_judged(setting) for setting in result.settings) else ()
    heads = ["#", "point", "state", *map(_leaf, factors), "iterative, ms", "vs dense", "vs linear", *lost, "size"]
    head = "".join(f'<th scope="col" data-column="{i}">{escape(name)}</th>' for i, name in enumerate(heads))
    numbered = list(enumerate(result.planned.points, 1))

    def comes_first(entry: tuple) -> bool:
        return entry[1].name in on or result.outcome(entry[1].name).status == "failed"

    shown = sorted(sorted(numbered, key=lambda entry: not comes_first(entry))[:MOST_POINTS])
    body = "".join(_point_row(result, number, point, point.name in on, bool(lost)) for number, point in shown)
    told = "All points; those on a frontier have a star"
    if len(shown) < len(numbered):
        told = (
            f"{len(shown):,} of {len(numbered):,} points: those on a frontier, which have a star, those that failed, "
            "and the first of the others; report.csv has all"
        )
    return (
        f'<div class="scroll"><table class="sortable"><caption>{told}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _point_row(result: SweepResult, number: int, point, on_frontier: bool, judged: bool) -> str:
    outcome = result.outcome(point.name)
    name = f"{point.name}{' ★' if on_frontier else ''}"
    linked = link(f"{point.name}/index.html", name) if _has_page(result.dir / point.name) else escape(name)
    state = f'<span class="{_CLASS.get(outcome.status, "none")}">{escape(STATUS_WORDS[outcome.status])}</span>'
    state += f"<small>{escape(outcome.reason)}</small>" if outcome.reason else ""
    cells = [_cell(number, str(number)), _cell(point.name, linked), _cell(outcome.status, state)]
    cells += [_cell(level, escape(level)) for level in point.levels.values()]
    arm, linear = outcome.arms.get("iterative"), outcome.arms.get("linear")
    items: list[Figure | None] = [arm.latency_ms, arm.latency_vs_dense] if arm else [None, None]
    cells += [_figure_cell(item) for item in items]
    cells.append(_against(arm, linear))
    if judged:
        cells += [_figure_cell(item) for item in ((arm.quality_drop_pp, arm.other_drop_pp) if arm else (None, None))]
    cells.append(_cell(arm.parameter_bytes, escape(_size(arm.parameter_bytes))) if arm else _cell("", "–"))
    return f"<tr>{''.join(cells)}</tr>"


def _has_page(folder: Path) -> bool:
    return (folder / "index.html").is_file()


def _against(arm, linear) -> str:
    """The ratio of two medians of one run; its interval is on the run's own page."""
    one, two = (entry.latency_ms.value if entry else None for entry in (arm, linear))
    if one is None or two is None:
        return _cell("", "–")
    return _cell(one / two - 1, f"{100 * (one / two - 1):+.1f}\u00a0%".replace("-", "−"))


def _figure_cell(item: Figure | None) -> str:
    return _cell("" if item is None or item.value is None else item.value, figure_html(item))


def _cell(key, html: str) -> str:
    return f'<td data-sort="{escape(str(key))}">{html}</td>'
