"""From dense in PyTorch eager to the result as deployed: what runtime, precision, S, Q and layout each are worth."""

import textwrap

from icd_lib.metric import Figure, not_measured
from icd_lib.records.measured import Against, DeployStep
from icd_lib.report.kinds import models_only
from icd_lib.report.losses import NEARNESS, stated
from icd_lib.report.picture import COLOURS, FULL, SMALL, error_bar
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing, Table, badged
from icd_lib.report.words import interval_text, value_text

TITLE = "From dense in PyTorch to the result as deployed"
OLDER = "this run was measured before its steps were taken apart; measure it again with run_all.py --force"
NOTE = (
    "all arms interleaved in one process; alone: against the named step, which differs in that one thing, 95 % CI. S "
    "removes, Q rounds weights and inputs, the layout is where the same function is put; quality is judged as "
    "each step is deployed"
)
_WIDTH = 24  # characters of a step beside the drawing


@badged("model", "timing", "layout")
@models_only(TITLE, "the table is deployed nowhere else")
def table(results: Results) -> Table | Missing | DoesNotApply:
    """Latency and quality of each step, and of what it differs from in one thing alone."""
    if not results.measure:
        return Missing(TITLE, "03_measure has not finished")
    if results.in_eager:
        return DoesNotApply(TITLE, "the models run in PyTorch eager at fp32, where everybody begins")
    if results.measure.deployment is None:
        return Missing(TITLE, OLDER)
    key = "perplexity_ratio" if results.is_language else "cosine"
    rows = []
    for step in results.measure.deployment:
        near = getattr(step.validation, key)
        rows.append(
            [
                step.step,
                step.place,
                step.latency_ms,
                step.vs_eager,
                "; ".join(alone_text(results, item) for item in step.against) or "–",
                stated(step.validation) or f"not judged: {step.validation.reason}",
                "–" if near is None else f"{near:.4f}",
                step.note,
            ]
        )
    columns = ["step", "runs in", "median latency", "against dense in eager", "what it is worth alone"]
    columns += ["lost where strengths are chosen", NEARNESS[key], "note"]
    return Table(f"{TITLE}, {results.first_shape}", columns, rows, NOTE)


def alone_text(results: Results, item: Against) -> str:
    """What one thing is worth, in words."""
    names = {step.arm: step.step for step in results.measure.deployment}
    change = item.latency_rel
    if change.is_missing:
        return f"{item.shows}: not measured, {change.reason}"
    extent = interval_text(change.ci95, change.unit)
    return (
        f"{item.shows} {value_text(change.value, change.unit)} ({extent}; against {names.get(item.other, item.other)})"
    )


def drawn_steps(results: Results) -> list[DeployStep]:
    """The steps that a drawing can show."""
    steps = (results.measure.deployment if results.measure else None) or []
    return [step for step in steps if not step.latency_ms.is_missing]


def draw(panel, results: Results) -> str:
    """A bar for every measured step, its loss at the right; returns what the drawing tells."""
    steps = drawn_steps(results)
    for row, step in enumerate(steps):
        item = step.latency_ms
        colour = COLOURS.get(step.arm) or COLOURS.get(step.arm.partition("_")[0], FULL)
        panel.barh(row, item.value, color=colour, height=0.62)
        panel.errorbar(item.value, row, xerr=error_bar(item), fmt="none", color="black", capsize=3)
        if step.validation.is_judged:
            drop = value_text(step.validation.drop_pp, "pp")
            panel.annotate(f"lost\n{drop}", (1.0, row), xycoords=("axes fraction", "data"), fontsize=SMALL, va="center")
    panel.set_yticks(range(len(steps)), [textwrap.fill(step.step, _WIDTH) for step in steps])
    panel.invert_yaxis()
    panel.set_xlabel(f"latency as deployed, ms ({next(iter(results.shapes))}, 95 % CI)")
    return ", ".join(f"{step.step} {value_text(step.latency_ms.value, 'ms')}" for step in steps)


def figures(results: Results) -> list[tuple[str, str, str, Figure]]:
    """(arm, shape, metric, figure) of every step, for report.csv."""
    rows, shape = [], next(iter(results.shapes), "")
    for step in results.measure.deployment or []:
        rows.append((step.arm, shape, "step.latency_rel_vs_eager", step.vs_eager))
        rows += [(f"{step.arm}|{item.other}", shape, "step.latency_rel", item.latency_rel) for item in step.against]
        lost = stated(step.validation) or not_measured("pp", step.validation.reason)
        rows.append((step.arm, "", "step.own_drop_pp.selection", lost))
    return rows
