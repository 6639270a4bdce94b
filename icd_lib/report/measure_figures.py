"""Drawings of the measurement: latency distributions, quality against latency, attribution, runtime ladder."""

import textwrap
from typing import Any

import numpy as np

from icd_lib.metric import Figure, figure
from icd_lib.records.attempts import Attempt
from icd_lib.records.losses import DomainLoss, SplitLoss
from icd_lib.records.measured import Step
from icd_lib.report import deployment_steps, workload_figures
from icd_lib.report.kinds import for_tables, models_only, tables_only
from icd_lib.report.losses import READINGS, lost, readings, text_words
from icd_lib.report.picture import (
    COLOURS,
    FULL,
    LIMIT,
    MARKERS,
    SMALL,
    SPLIT_COLOURS,
    Picture,
    canvas,
    error_bar,
    finish,
    legend,
    themed,
    title,
)
from icd_lib.report.results import Results
from icd_lib.report.table import Missing
from icd_lib.report.words import value_text


@themed
def latency_distributions(results: Results) -> Picture | Missing:
    """Every round of every arm as a point, the median with its interval, one panel per shape."""
    if not results.samples or not results.measure:
        return Missing("Latency distributions", "03_measure has not finished")
    shapes = results.samples["shapes"]
    heights = [0.9 + 0.36 * len(arms) for arms in shapes.values()]
    drawing, axes = canvas(sum(heights), len(shapes), squeeze=False, height_ratios=heights)
    generator = np.random.default_rng(0)  # vertical jitter only
    for panel, (label, samples) in zip(axes[:, 0], shapes.items(), strict=True):
        arms = list(samples)
        for row, arm in enumerate(arms):
            ms, item, colour = np.array(samples[arm]), results.shapes[label][arm].latency_ms, COLOURS.get(arm, FULL)
            panel.scatter(
                ms, row + generator.uniform(-0.22, 0.22, len(ms)), s=9, alpha=0.45, color=colour, linewidths=0
            )
            panel.errorbar(item.value, row, xerr=error_bar(item), fmt="|", color="black", capsize=4, ms=16, mew=2)
        pooled = np.concatenate([samples[arm] for arm in arms])
        panel.set_xlim(pooled.min() * 0.98, np.percentile(pooled, 99) * 1.02)
        what = "reads" if results.is_table else "tokens"
        panel.set_title(f"{label} {what}, n = {len(ms)} rounds")
        panel.set_xlabel("latency, ms (bar: median with 95 % CI)")
        panel.grid(axis="x")
        panel.set_yticks(range(len(arms)), arms)
        panel.invert_yaxis()
    first = next(iter(shapes))
    medians = {arm: results.shapes[first][arm].latency_ms.value for arm in results.arms}
    told = ", ".join(f"{arm} {ms:.{1 if ms >= 10 else 2}f} ms" for arm, ms in medians.items())
    caption = "Latency, all arms interleaved; every dot is one round"
    return finish(drawing, "latency", f"Latency distributions; medians at {first}: {told}.", caption, results)


_DRAWN = {"own": "o", "dropin": "s"}  # own filled, drop-in open
NO_TRADE = "every arm has the same transform, so there is no quality to trade for time"


@models_only("Quality against latency", NO_TRADE)
@themed
def quality_frontier(results: Results) -> Picture | Missing:
    """Candidates (small) and results with intervals on the budget's text (large): all, and those around the budget."""
    if results.quality_reason:
        return Missing("Quality against latency", results.quality_reason)
    label, arms = next(iter(results.shapes.items()))
    drops = {arm: _drop(results, arm) for arm in results.arms}
    reach = 1.3 * max([abs(bound) for drop in drops.values() for bound in drop.ci95] + [results.budget_pp or 0.0])
    beyond = any(abs(entry.validation.drop_pp) > reach for _, entry in _judged_attempts(results))
    names = ["everything", "around the budget"] if beyond else [""]
    drawing, axes = canvas(1.4 + 3.1 * len(names), len(names), squeeze=False)
    for panel, name in zip(axes[:, 0], names, strict=True):
        _draw_attempts(panel, results)
        for arm, drop in drops.items():
            latency = arms[arm].vs_dense
            style = {"fmt": MARKERS[arm], "color": COLOURS[arm], "markersize": 10, "capsize": 4}
            bars = {"xerr": error_bar(latency, 100), "yerr": error_bar(drop)}
            panel.errorbar(100 * latency.value, drop.value, **bars, **style, label=arm)
        _draw_budget(results, panel.axhline)
        panel.axhline(0, color=FULL, linewidth=0.6)
        panel.set(xlabel=f"latency against dense, % ({label})", ylabel="own quality lost, pp", title=name)
    axes[-1, 0].set_ylim(-reach or None, reach or None)
    large = f"Large: {results.judging} text, 95 % CI"
    small = "small: where strengths are chosen, at predicted latency (open: rolled back; smallest: drafts)"
    title(drawing, f"{large}; {small}")
    legend(drawing, axes[0, 0])
    told = (
        f"{arm} {100 * arms[arm].vs_dense.value:+.1f} % latency, {drop.value:+.3f} pp lost"
        for arm, drop in drops.items()
    )
    alt = f"Quality lost on {results.judging} text against latency. {'; '.join(told)}."
    return finish(drawing, "frontier", alt, f"Quality on {results.judging} text against latency", results)


def _drop(results: Results, arm: str) -> Figure:
    entry = results.lost(arm).get(results.judging)
    return lost(entry.own, entry.n_items) if entry else figure(0.0, "pp", "measured", ci95=(0.0, 0.0))


def _draw_budget(results: Results, line) -> None:
    """The budget, by an axes' `axhline` or `axvline`."""
    if results.budget_pp is not None:
        line(results.budget_pp, color=LIMIT, linestyle="--", label=f"budget {results.budget_pp:g} pp")


def _judged_attempts(results: Results) -> list[tuple[str, Attempt]]:
    """(mode, entry) of every draft and attempt whose loss is known."""
    attempts = [(mode, entry) for mode in results.solves for entry in results.attempts(mode)]
    return [(mode, entry) for mode, entry in attempts if entry.validation and entry.validation.is_judged]


def _draw_attempts(panel, results: Results) -> None:
    for mode, entry in _judged_attempts(results):
        colour, small = COLOURS[mode], entry.is_draft
        style: dict[str, Any] = {"color": colour, "mfc": colour if entry.accepted else "none"}
        style |= {"markersize": 4 if small else 6, "alpha": 0.6 if small else 0.8}
        panel.plot(100 * entry.predicted_latency_rel, entry.validation.drop_pp, MARKERS[mode], **style)


@models_only("Quality by domain", NO_TRADE)
@themed
def quality_domains(results: Results) -> Picture | Missing:
    """Own and drop-in loss of iterative in every domain with intervals, unseen text above seen text."""
    if not results.lost("iterative"):
        return Missing("Quality by domain", results.quality_reason or "the run has no iterative arm")
    judged, told = results.lost("iterative"), []
    sizes = [len(entry.domains) for entry in judged.values()]
    height, shares = 1.0 * len(sizes) + 0.42 * sum(sizes), [0.6 + size for size in sizes]
    drawing, axes = canvas(height, len(sizes), squeeze=False, sharex=True, height_ratios=shares)
    for panel, (split, entry) in zip(axes[:, 0], judged.items(), strict=True):
        _draw_domains(panel, results, split, entry)
        told += [f"{split} {name} {_told(part)}" for name, part in entry.domains.items()]
    axes[-1, 0].set_xlabel("lost against dense, pp (95 % CI)")
    legend(drawing, axes[0, 0])
    alt = f"Quality that iterative loses by domain, percentage points: {'; '.join(told)}."
    return finish(drawing, "quality_domains", alt, "Quality lost by domain, unseen and seen text", results)


def _draw_domains(panel, results: Results, split: str, entry: SplitLoss) -> None:
    """One split's domains from top to bottom: own filled, drop-in open."""
    colour, names = SPLIT_COLOURS.get(split, FULL), list(entry.domains)
    for (key, marker), fill, shift in zip(_DRAWN.items(), (colour, "white"), (-0.14, 0.14), strict=True):
        for row, name in enumerate(names):
            item = lost(entry.domains[name].reading(key), entry.domains[name].n)
            if item:
                style = {"fmt": marker, "color": colour, "mfc": fill, "capsize": 3, "ms": 7}
                label = readings(results)[key] if row == 0 else None
                panel.errorbar(item.value, row + shift, xerr=error_bar(item), label=label, **style)
    _draw_budget(results, panel.axvline)
    panel.axvline(0, color=FULL, linewidth=0.6)
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_title(f"text: {text_words(results, split)}", color=colour)


def _told(part: DomainLoss) -> str:
    losses = [(READINGS[key], part.reading(key)) for key in _DRAWN]
    return ", ".join(f"{words} {loss.drop_pp:+.3f}" for words, loss in losses if loss)


cache_hits = tables_only("Simulated caches", "the accesses of a model's operators are not traced")(
    workload_figures.cache_hits
)


@for_tables(workload_figures.attribution)
@themed
def attribution(results: Results) -> Picture | Missing:
    """Latency against dense after each step from dense to iterative, with intervals and the quality of each step."""
    steps = results.measure.attribution if results.measure else None
    if not steps:
        return Missing("Attribution", "the run has no measured iterative arm")
    steps = [step for step in steps if step.arm != "dense_eager"]  # in older runs: several times as long
    deployed = deployment_steps.drawn_steps(results)
    heights = [1.4 + 0.4 * len(part) for part in (steps, deployed) if part]
    drawing, panels = canvas(sum(heights), len(heights), squeeze=False, height_ratios=heights)
    axes = panels[0, 0]
    for row, step in enumerate(steps):
        item = step.latency_rel
        axes.barh(row, 100 * item.value, color=COLOURS.get(_arm_of(results, step), FULL), height=0.62)
        axes.errorbar(100 * item.value, row, xerr=error_bar(item, 100), fmt="none", color="black", capsize=3)
        if step.validation and step.validation.is_judged:
            drop = value_text(step.validation.drop_pp, "pp")
            axes.annotate(f"lost\n{drop}", (1.0, row), xycoords=("axes fraction", "data"), fontsize=SMALL, va="center")
    axes.axvline(0, color=FULL, linewidth=0.8)
    axes.set_yticks(range(len(steps)), [textwrap.fill(step.step, 20) for step in steps])
    axes.invert_yaxis()
    axes.set_xlabel("latency against dense, % (95 % CI)")
    if any(step.validation for step in steps):
        title(drawing, "right: quality lost where strengths are chosen")
    told = ", ".join(f"{step.step} {100 * step.latency_rel.value:+.1f} %" for step in steps)
    if deployed:
        told += f". From dense in PyTorch to what is deployed: {deployment_steps.draw(panels[1, 0], results)}"
    return finish(drawing, "attribution", f"Latency after each step: {told}.", "What the gain is made of", results)


def _arm_of(results: Results, step: Step) -> str:
    """The arm whose latency a step shows; the record names none."""
    arms = results.measure.latency.first
    return next((arm for arm, entry in arms.items() if entry.vs_dense == step.latency_rel), "iterative")


@models_only("Runtime ladder", "the pass over the table is one compiled loop")
@themed
def runtime_ladder(results: Results) -> Picture | Missing:
    """Latency of dense and iterative under every runtime, against dense under eager."""
    if not results.ladder:
        return Missing("Runtime ladder", "it was not measured in this run (measure.ladder)")
    measured = {name: entry for name, entry in results.ladder.runtimes.items() if entry.is_measured}
    if not measured:
        return Missing("Runtime ladder", "no runtime could be measured here")
    shapes = list(next(iter(measured.values())).shapes)
    drawing, axes = canvas(0.5 + (0.8 + 0.5 * len(measured)) * len(shapes), len(shapes), squeeze=False)
    told = []
    for panel, label in zip(axes[:, 0], shapes, strict=True):
        for row, (name, entry) in enumerate(measured.items()):
            arms = entry.shapes[label].arms
            for i, (arm, figures) in enumerate(arms.items()):
                item, place = figures["latency_ms"], row + (i + 0.5) * 0.8 / len(arms) - 0.4
                named = {"label": arm} if row == 0 else {}
                panel.barh(place, item.value, 0.74 / len(arms), color=COLOURS.get(arm, FULL), **named)
                panel.errorbar(item.value, place, xerr=error_bar(item), fmt="none", color="black", capsize=2)
                told.append(f"{name} {arm} {item.value:.1f} ms")
        panel.set_xlabel(f"latency, ms ({label}, 95 % CI)")
        panel.set_yticks(range(len(measured)), [textwrap.fill(entry.label, 26) for entry in measured.values()])
        panel.invert_yaxis()
    legend(drawing, axes[0, 0])
    alt = f"Latency under each runtime: {', '.join(told)}."
    return finish(drawing, "ladder", alt, "Runtime ladder: arms interleaved within each runtime", results)
