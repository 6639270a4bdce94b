"""What generates: pages of the cache before and after, what that loses, and every arm's time per token."""

import numpy as np

from icd_lib.metric import Figure
from icd_lib.records.decoding import DECODING, Decoding
from icd_lib.records.generation import (
    EXPORTED_ARM,
    GENERATION,
    CachePoint,
    DecodeArm,
    DecodeShape,
    Generation,
    LookUpPoint,
)
from icd_lib.report.picture import COLOURS, FULL, LIMIT, Picture, canvas, error_bar, finish, themed, title
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing, Table, badged
from icd_lib.report.words import bytes_text, interval_text, value_text
from icd_lib.storage.record_json import from_json

_OTHER = DoesNotApply("Generating, with a compressed cache", "this run's model generates nothing, or keeps its cache")
_UNITS = {"token": "tokens, by attention", "page": "whole pages, by attention", "recent": "the most recent tokens"}
_COLOURS = {"token": COLOURS["iterative"], "page": COLOURS["oneshot"], "recent": COLOURS["dense"]}


def generation_of(results: Results) -> Generation | Missing | DoesNotApply:
    """What the run found of its decoder; why there is nothing else."""
    if "kv" not in results.config:
        return _OTHER
    found = results.read(GENERATION)
    if not found:
        return Missing("Generating", "03_measure has not finished")
    return from_json(Generation, found, GENERATION)


def decoding_of(results: Results) -> Decoding | Missing:
    """What the run found of its model with a state; why there is nothing else."""
    found = results.read(DECODING)
    if found:
        return from_json(Decoding, found, DECODING)
    return Missing("Generating", "03_measure has not finished")


@badged("model")
def cache_table(results: Results, split: str | None = None) -> Table | Missing | DoesNotApply:
    """Per cache: pages and bytes in either layout, and what is lost against dense with its full cache."""
    found = generation_of(results)
    if not isinstance(found, Generation):
        return found
    split = split or results.judging
    points = [point for point in found.points if point.split == split]
    if not points:
        return Missing("Compressed caches", results.quality_reason or f"no cache was judged on {split} text")
    rows = [
        [
            _UNITS[point.unit],
            f"{point.keep:.0%}" + (" (chosen)" if point.keep == found.keep and point.unit == "token" else ""),
            f"{point.pages_full:,.0f}",
            f"{point.pages_linear:,.0f}",
            f"{point.pages_iterative:,.0f}",
            f"{bytes_text(point.bytes_linear)} / {bytes_text(point.bytes_iterative)}",
            point.drop_pp,
            point.perplexity_ratio,
            point.kl_full,
        ]
        for point in points
    ]
    columns = ["what stays", "of the prompt", "pages, full", "pages, linear", "pages, iterative"]
    columns += ["bytes a token reads, linear / iterative", "accuracy lost", "perplexity ×", "KL to the full cache"]
    note = (
        f"{found.continued} tokens after a prompt of {found.context}, {points[0].n_tokens:,} tokens in all; pages of "
        f"{found.page} tokens, over all layers and KV groups; losses are against the dense model with its full cache, "
        "KL against the same model's. Both layouts compute the same"
    )
    if found.layout_error is not None:
        note += f" (largest relative difference of logits {found.layout_error:.0e})"
    return Table(f"Compressed caches on {split} text", columns, rows, note)


@badged("model")
def lookup_table(results: Results) -> Table | Missing | DoesNotApply:
    """Records looked up in a long text, whose cache was compressed before anything was asked."""
    found = generation_of(results)
    if not isinstance(found, Generation):
        return found
    if not found.lookups:
        return Missing("Look-ups", results.quality_reason or "none was asked")
    rows = [
        [point.split or results.judging, _share(point), point.exact_pct, f"{point.dense_pct:.0f} %", point.n]
        for point in found.lookups
    ]
    note = "a record somewhere in the text is asked for once the cache is compressed: perplexity hides what this breaks"
    columns = ["text", "of the prompt", "right answers", "dense, full cache", "questions"]
    return Table(f"Look-ups in {found.context} tokens", columns, rows, note)


def _share(point: LookUpPoint) -> str:
    return "all" if point.keep is None else f"{point.keep:.0%}"


@badged("model")
def cloze_table(results: Results) -> Table | Missing | DoesNotApply:
    """The hidden last word of a sentence, found among others of the same passage by every arm."""
    found = generation_of(results)
    if not isinstance(found, Generation):
        return found
    reasons = "; ".join(f"{split} text: {why}" for split, why in found.cloze_missing.items())
    if not found.cloze:
        return Missing("Cloze questions", reasons or results.quality_reason or "none was asked")
    rows = [
        [point.split, point.arm, point.right_pct, f"{point.dense_pct:.0f} %", f"{point.chance_pct:.0f} %", point.n]
        for point in found.cloze
    ]
    note = (
        "the last word of a sentence is chosen among others, all of which occur before in the passage; the cache is "
        "whole, intervals are of the difference to dense, clustered by document"
    )
    columns = ["text", "arm", "right answers", "dense", "by guessing", "questions"]
    return Table("Cloze questions", columns, rows, f"{note}. No questions of {reasons}" if reasons else note)


def clock_of(results: Results) -> list[DecodeShape] | Missing | DoesNotApply:
    """Every measurement of decoding, of a model with a cache or with a state; why there is none else."""
    found = decoding_of(results) if "decode" in results.config else generation_of(results)
    return found if isinstance(found, Missing | DoesNotApply) else found.clock


@badged("timing")
def decode_table(results: Results) -> Table | Missing | DoesNotApply:
    """Time to first token and per token of every arm at every shape."""
    clock = clock_of(results)
    if isinstance(clock, Missing | DoesNotApply):
        return clock
    rows: list[list] = []
    for shape in clock:
        for arm in shape.arms.values():
            against = [arm.first_vs_dense, arm.step_vs_dense]
            rows.append([shape_label(shape), arm.label, arm.first_ms, arm.step_ms, *against, arm.bytes_per_token])
        rows += [[shape_label(shape), name, reason, "", "", "", ""] for name, reason in shape.missing.items()]
    columns = ["batch × prompt", "arm", "to first token", "per token", "first, against dense", "token, against dense"]
    note = "interleaved token by token in one process, every arm with its own cache; bytes are modelled"
    return Table("Time to first token and per token", [*columns, "bytes a token reads"], rows, note)


@badged("model")
def deployed_table(results: Results) -> Table | Missing | DoesNotApply:
    """What every runtime that decodes loses, the export among them."""
    found = decoding_of(results) if "decode" in results.config else generation_of(results)
    if isinstance(found, Missing | DoesNotApply):
        return found
    if not found.deployed:
        return Missing("Quality where it decodes", results.quality_reason or "no runtime was judged")
    rows = [
        [point.label, point.split, point.n_tokens, point.drop_pp, point.perplexity_ratio, point.kl]
        for point in found.deployed
    ]
    note = (
        "in the compiled graph itself, against the dense model in PyTorch, fp32; of every text the "
        "second half is read after the first, so that the cache takes part"
    )
    columns = ["model and runtime", "text", "tokens", "accuracy lost", "perplexity ×", "KL to dense"]
    return Table("Quality where it decodes", columns, rows, note)


@themed
def cache_frontier(results: Results) -> Picture | Missing | DoesNotApply:
    """KL to the full cache against what stays, and pages of either layout."""
    found = generation_of(results)
    if not isinstance(found, Generation):
        return found
    points = [point for point in found.points if point.split == results.judging]
    if not points:
        return Missing("What a smaller cache costs", results.quality_reason or "no cache was judged")
    drawing, panels = canvas(6.2, 2, 1)
    for unit, words in _UNITS.items():
        chosen = sorted((point for point in points if point.unit == unit), key=lambda point: point.keep)
        keeps = [100 * point.keep for point in chosen]
        bars = np.concatenate([error_bar(point.kl_full) or [[0.0], [0.0]] for point in chosen], axis=1)
        values = [point.kl_full.value for point in chosen]
        panels[0].errorbar(keeps, values, yerr=bars, marker="o", capsize=3, color=_COLOURS[unit], label=words)
    panels[0].set(ylabel="KL to the full cache, nats", xlabel="tokens that stay, %")
    panels[0].legend()
    _draw_pages(panels[1], [point for point in points if point.unit == "token"], found.keep)
    title(drawing, f"The cache after {found.context} tokens, on {results.judging} text")
    return finish(drawing, "cache_frontier", " ".join(lines(results)), "What a smaller cache costs and gives.", results)


def _draw_pages(panel, points: list[CachePoint], keep: float | None) -> None:
    points = sorted(points, key=lambda point: -point.keep)
    places = np.arange(len(points))
    for shift, key, colour, label in (
        (-0.2, "pages_linear", COLOURS["linear"], "linear: pages with a living token"),
        (0.2, "pages_iterative", COLOURS["iterative"], "iterative: living tokens in whole pages"),
    ):
        values = [100 * getattr(point, key) / point.pages_full for point in points]
        panel.barh(places + shift, values, 0.38, color=colour, label=label)
    panel.axvline(100, color=LIMIT, linestyle="--", linewidth=1)
    panel.set_yticks(places, [f"{point.keep:.0%}" + (" *" if point.keep == keep else "") for point in points])
    panel.invert_yaxis()
    panel.set(xlabel="pages read, % of the full cache's (*: chosen)", ylabel="tokens that stay")
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))


@themed
def decode_times(results: Results) -> Picture | Missing | DoesNotApply:
    """Time per token of every arm, one panel per shape."""
    clock = clock_of(results)
    if isinstance(clock, Missing | DoesNotApply):
        return clock
    heights = [0.7 + 0.3 * len(shape.arms) for shape in clock]
    drawing, axes = canvas(0.6 + sum(heights), len(heights), squeeze=False, height_ratios=heights)
    for panel, shape in zip(axes[:, 0], clock, strict=True):
        for row, (name, arm) in enumerate(shape.arms.items()):
            colour = COLOURS.get(name, COLOURS["iterative"] if name.startswith("iterative") else FULL)
            panel.barh(row, arm.step_ms.value, color=colour, height=0.7)
            panel.errorbar(arm.step_ms.value, row, xerr=error_bar(arm.step_ms), color="black", capsize=3)
        panel.set_yticks(range(len(shape.arms)), list(shape.arms))
        panel.invert_yaxis()
        panel.set_title(f"{shape_label(shape)} tokens")
        panel.set_xlabel("time per token of the whole batch, ms")
    title(drawing, "Time per token")
    alt = " ".join(line for line in lines(results) if "per token" in line) or "Time per token of every arm."
    return finish(drawing, "decode_times", alt, "Time per decoded token, interleaved; bars: 95 % CI.", results)


def lines(results: Results) -> list[str]:
    """In sentences: what the cache loses and saves, and what that gives per token."""
    return cache_lines(results) + step_lines(results)


def cache_lines(results: Results) -> list[str]:
    """In sentences: what the cache loses and saves."""
    found = generation_of(results)
    if not isinstance(found, Generation):
        return []
    told = []
    for point in found.points:
        if point.split == results.judging and point.unit == "token" and point.keep == found.keep:
            fewer = 1 - point.pages_iterative / point.pages_linear
            told.append(
                f"With {point.keep:.0%} of a prompt's tokens in the cache, {fewer:.0%} fewer pages are read in whole "
                f"pages than where the tokens were; {value_text(point.drop_pp.value, 'pp')} of next-token accuracy are "
                f"lost on {results.judging} text against dense with its full cache."
            )
    if found.keep is None and found.points:
        told.append(f"Cache: {found.why}.")
    return told


def step_lines(results: Results) -> list[str]:
    """In a sentence for every shape: what the result takes per token; then in OpenVINO."""
    clock = clock_of(results)
    if isinstance(clock, Missing | DoesNotApply):
        return []
    told = []
    for shape in clock:
        if (arm := shape.arms.get("iterative")) is not None:
            change = _change_text(arm.step_vs_dense)
            told.append(f"Iterative takes {change} per token against dense at {shape_label(shape)}, in PyTorch.")
    return told + exported_lines(results)


def exported_lines(results: Results) -> list[str]:
    """In a sentence for every shape: the result in OpenVINO, which a decoder's run leaves for use."""
    clock = clock_of(results)
    if isinstance(clock, Missing | DoesNotApply):
        return []
    kept = "kv" in results.config
    what = "Exported, with its cache in the graph," if kept else "In OpenVINO, its state in the graph,"
    return [_exported(what, shape.arms[EXPORTED_ARM], shape) for shape in clock if EXPORTED_ARM in shape.arms]


def _exported(what: str, arm: DecodeArm, shape: DecodeShape) -> str:
    """The result's graph against dense in PyTorch, and against each way to run dense without this project."""
    others = [f"{_change_text(change)} against {peer}" for peer, change in arm.step_vs.items()]
    against = f"; with the dense model: {', '.join(others)}" if others else ""
    return (
        f"{what} it takes {_change_text(arm.step_vs_dense)} per token against dense in "
        f"PyTorch at {shape_label(shape)}{against}."
    )


def _change_text(change: Figure) -> str:
    return f"{value_text(change.value, 'fraction')} ({interval_text(change.ci95, 'fraction')})"


def shape_label(shape: DecodeShape) -> str:
    """Batch and prompt, as tables have them."""
    return f"{shape.batch} × {shape.context}"
