"""A table that shows itself in a notebook and on a page; every cell that comes from data is escaped."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from html import escape

from icd_lib.metric import Figure
from icd_lib.report.words import figure_html, figure_text

# Jupyter's own style aligns tables to the right and is more specific, hence the !important.
STYLE = """
.icd{font-size:.92em;line-height:1.4}
.icd table{border-collapse:collapse;margin:.2em 0 .6em}
.icd caption{text-align:left;font-weight:600;padding:.3em 0;caption-side:top}
.icd th,.icd td{text-align:left!important;vertical-align:top!important;padding:.35em .8em .35em 0;
 border-bottom:1px solid #8885;white-space:normal!important}
.icd th{font-weight:600}
.icd pre{font-family:ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap}
.icd small{display:block;opacity:.8;font-size:.85em}
.icd .pass,.icd .fail,.icd .none,.icd .not_measured,.icd .partial{font-weight:600;white-space:nowrap}
.icd .pass{color:#00664b}.icd .fail{color:#b3400a}.icd .none,.icd .not_measured,.icd .partial{color:#6b5b00}
.icd caption .badge{font-size:.8em;padding:0 .45em}
.icd .badge{display:inline-block;border:1px solid #d59f0f;background:#fff4d6;color:#5c4300;border-radius:.4em;
 padding:.15em .6em;margin:.1em .3em .1em 0;font-weight:600}
@media (prefers-color-scheme:dark){.page.icd .pass{color:#4fd6a8}.page.icd .fail{color:#ff9a66}
 .page.icd .none,.page.icd .not_measured,.page.icd .partial{color:#e3c64a}}
"""


@dataclass(frozen=True)
class Verdict:
    """A cell that is pass, fail, partial or not_measured, told by `text` where that is given."""

    word: str
    text: str = ""

    def __str__(self) -> str:
        return self.text or self.word


@dataclass(frozen=True)
class Flagged:
    """A figure that is worse than was allowed, and the words that say so."""

    item: Figure
    words: str

    def __str__(self) -> str:
        return f"{figure_text(self.item)}, {self.words}"


@dataclass(frozen=True)
class Table:
    """Rows of cells; a cell is text, a number, a figure, a `Verdict` or `Flagged`."""

    title: str
    columns: list[str]
    rows: list[list]
    note: str = ""
    badges: tuple[str, ...] = ()

    def to_html(self) -> str:
        """The table as HTML, to stand inside an element of class `icd`."""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.columns)
        body = "".join(f"<tr>{_row(row)}</tr>" for row in self.rows)
        note = f"<p><small>{escape(self.note)}</small></p>" if self.note else ""
        return (
            f'<div class="scroll"><table><caption>{escape(self.title)} {Badges(self.badges).to_html()}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
        )

    def to_markdown(self) -> str:
        """The table in Markdown, its title above and its note below."""
        rows = [[_text(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in self.rows]
        lines = [f"| {' | '.join(self.columns)} |", "|---" * len(self.columns) + "|"]
        lines += [f"| {' | '.join(cells)} |" for cells in rows]
        return "\n\n".join(filter(None, [f"**{self.title}**", "\n".join(lines), self.note]))

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="icd">{self.to_html()}</div>'

    def __repr__(self) -> str:
        title = f"{self.title} [{'; '.join(self.badges)}]" if self.badges else self.title
        lines = [title, " | ".join(self.columns)]
        lines += [" | ".join(map(_text, row)) for row in self.rows]
        return "\n".join([*lines, self.note] if self.note else lines)


@dataclass(frozen=True)
class Missing:
    """Stands where a figure or table would be, and says why it is not there."""

    title: str
    reason: str

    def to_html(self) -> str:
        return (
            f'<p><strong>{escape(self.title)}</strong>: <span class="none">not there</span>, {escape(self.reason)}</p>'
        )

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="icd">{self.to_html()}</div>'

    def __repr__(self) -> str:
        return f"{self.title}: not there, {self.reason}"


@dataclass(frozen=True)
class DoesNotApply:
    """Stands where another kind of run has a figure or table, and says why this one has none."""

    title: str
    reason: str

    def to_html(self) -> str:
        return f"<p><strong>{escape(self.title)}</strong> does not apply here: {escape(self.reason)}.</p>"

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="icd">{self.to_html()}</div>'

    def __repr__(self) -> str:
        return f"{self.title} does not apply here: {self.reason}"


@dataclass(frozen=True)
class Note:
    """A few sentences and a piece of code, to be read and copied."""

    title: str
    text: str
    code: str = ""

    def to_html(self) -> str:
        code = f"<pre>{escape(self.code)}</pre>" if self.code else ""
        return f"<p><strong>{escape(self.title)}</strong>: {escape(self.text)}</p>{code}"

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="icd">{self.to_html()}</div>'

    def __repr__(self) -> str:
        return f"{self.title}: {self.text}\n{self.code}".rstrip()


@dataclass(frozen=True)
class Badges:
    """Warnings that belong on top of everything a run shows."""

    texts: list[str] | tuple[str, ...] = field(default_factory=list)

    def to_html(self) -> str:
        return "".join(f'<span class="badge">{escape(text)}</span>' for text in self.texts)

    def _repr_html_(self) -> str:
        return f'<style>{STYLE}</style><div class="icd">{self.to_html() or "no warnings apply to this run"}</div>'

    def __repr__(self) -> str:
        return "; ".join(self.texts) or "no warnings apply to this run"


def badges(results) -> Badges:
    """The badges of a run, to show."""
    return Badges(results.badges)


def badged(*subjects: str) -> Callable:
    """For a function of `Results` that makes a table: the run's badges on these subjects stand on it, in short."""

    def wrap(make: Callable) -> Callable:
        @functools.wraps(make)
        def made(results, *args, **kwargs):
            table = make(results, *args, **kwargs)
            touched = tuple(results.badges_about(*subjects))
            return replace(table, badges=touched) if isinstance(table, Table) else table

        return made

    return wrap


def _text(cell) -> str:
    return figure_text(cell) if cell is None or isinstance(cell, Figure) else str(cell)


def _row(cells: list) -> str:
    first, *rest = cells
    return f'<th scope="row">{_cell(first)}</th>' + "".join(f"<td>{_cell(cell)}</td>" for cell in rest)


def _cell(cell) -> str:
    if isinstance(cell, Figure):
        return figure_html(cell)
    if isinstance(cell, Verdict):
        return f'<span class="{escape(cell.word)}">{escape(str(cell))}</span>'
    if isinstance(cell, Flagged):
        return f'<div class="fail">{figure_html(cell.item)}<small>{escape(cell.words)}</small></div>'
    # A number and its unit stay on one line.
    return escape("–" if cell is None else str(cell)).replace(" %", "\u00a0%").replace(" pp", "\u00a0pp")
