"""The last lines of a run on the terminal: what the user has now, where it lies, what it is worth and what it costs."""

import json
from pathlib import Path

from icd_lib.experiment.arms import MODES, RESULT
from icd_lib.experiment.gates import GATES
from icd_lib.metric import Figure
from icd_lib.records.verdict import Unknown
from icd_lib.report import generation
from icd_lib.report.compared import judged, latency_of, latency_states, other_arm, state_text, states_text
from icd_lib.report.losses import is_above, is_outside, lost, lost_in, readings
from icd_lib.report.results import Results
from icd_lib.report.words import bytes_text, interval_text, value_text


def ending_lines(results: Results) -> list[str]:
    """What a finished run gave, in about ten plain lines."""
    mode = next((mode for mode in (RESULT, *MODES) if mode in results.solves), None)
    if mode is None or not results.verdict:
        return ["Nothing was optimised and judged in this run."]
    alone = [] if mode == "iterative" else [f"Iterative was not run: what follows is {mode}'s."]
    return alone + (_table_lines(results, mode) if results.is_table else _model_lines(results, mode))


def _model_lines(results: Results, mode: str) -> list[str]:
    folder = _relative(results.dir / mode / "model")
    if not results.is_changed(mode):
        return [
            f"Nothing was accepted: every attempt of {mode} was rolled back, because of quality or latency.",
            f"What lies in {folder} is still the dense model, no smaller and no faster.",
            *_unfit(results, mode),
            *_gates(results, mode),
        ]
    sizes = results.measure.sizes
    size, full = (bytes_text(sizes[arm].parameter_bytes) for arm in (mode, "dense"))
    lines = [f"You have a smaller model, {size} instead of {full}, in {folder}", *_speed(results, mode)]
    lines += _lost(results, mode) + _unfit(results, mode) + _gates(results, mode)
    quoted = json.dumps(folder, ensure_ascii=False)
    return [
        *lines,
        "  import transformers, icd_lib as icd",
        f"  model = icd.load_optimized({quoted})",
        f"  tokenizer = transformers.AutoTokenizer.from_pretrained({quoted})",
    ]


def _speed(results: Results, mode: str) -> list[str]:
    item = results.measure.latency.first[mode].vs_dense
    lines = [f"Time against dense, {results.deployed or 'eager'}: {_change(item)}, {results.first_shape}"]
    target = results.solves[mode].latency_target_rel
    if results.solves[mode].reached is False:
        lines[0] += f"; the target of {value_text(target, 'fraction')} was NOT reached"
    if mode == "iterative" and results.fastest:
        change = f"{_change(results.fastest.vs_eager)} to dense in eager"
        lines.append(f"Fastest here: {results.fastest.label}, {change}; {lost_in(results, results.fastest)}")
    return lines + generation.exported_lines(results) + _best(results)


def _best(results: Results) -> list[str]:
    """Where what the machine runs fastest lies, ready for whoever does not have this package."""
    left = results.read("best.json") or {}
    if left.get("status") != "exported":
        return []
    return [
        f"Ready for use without this package: {left['label']}, in {_relative(results.dir / 'best')} (see README.md)"
    ]


def _lost(results: Results, mode: str) -> list[str]:
    """A line per split: what is lost of own and drop-in quality."""
    if results.quality_reason:
        return [f"Quality was not measured: {results.quality_reason}"]
    words, lines = readings(results), []
    for split, entry in results.lost(mode).items():
        given = {key: lost(entry.reading(key), entry.n_items) for key in ("own", "dropin") if key in words}
        parts = [f"{words[key]} {_change(item)}" for key, item in given.items() if item]
        above = is_above(results, given["own"])
        told = f", ABOVE the budget of {results.budget_pp:g} pp" if above else ""
        told += " (outside its domain)" if above and is_outside(results, split) else ""
        lines.append(f"Lost on {split} text: {'; '.join(parts)}{told}")
    return lines


def _unfit(results: Results, mode: str) -> list[str]:
    """Axes that no mode of this run could make smaller for want of whole tiles, and the cure."""
    return [f"Not made smaller: {line}" for line in results.solves[mode].unfit or []]


def _gates(results: Results, mode: str) -> list[str]:
    """What the gates say of which comparison, and which other comparisons fell short of the same limits."""
    if mode != "iterative":
        return ["Gates: not judged, they compare iterative with linear"]
    states = ", ".join(f"{gate} {state_text(results.verdict.gate(gate).status)}" for gate in GATES)
    lines = [f"Gates ({judged(results)}): {states}"]
    short = [
        f"{other_arm(results, key)} ({states_text(by_gate)})"
        for key, by_gate in ({} if results.is_table else latency_states(results)).items()
        if key != results.gates_comparison and "fail" in by_gate.values()
    ]
    return [*lines, f"Fell short of the same limits of latency: vs {', vs '.join(short)}"] if short else lines


def _table_lines(results: Results, mode: str) -> list[str]:
    """A layout instead of a model: what re-ordering gained, and how to read it."""
    path = _relative(results.dir / mode / "transform_meta.json")
    kept, verdict = results.solves[mode].sizes.rows, results.verdict
    lines = [f"You have a layout, {kept:,} rows in their new order, in {path}"]
    if mode == "iterative":
        gains = {"same_transform": other_arm(results, "same_transform"), "vs_packed": "the order before, packed"}
        changes = {other: latency_of(verdict, key) for key, other in gains.items()}
        told = [f"{_change(item)} to {other}" for other, item in changes.items() if not item.is_missing]
        lines.append(f"Time of reads that no layout was solved on: {'; '.join(told) or 'not measured'}")
        if not results.is_changed(mode):
            lines.append("Nothing was accepted: every round was rolled back, and the layout is that of linear.")
    if not isinstance(verdict.cost, Unknown):
        change = value_text(verdict.cost.delta_c_rel, "fraction")
        lines.append(f"Re-ordering changes C, the distance cost of what is read together, by {change} (computed)")
    quoted = json.dumps(path, ensure_ascii=False)
    return [
        *lines,
        *_gates(results, mode),
        "  import json",
        f'  order = json.load(open({quoted}))["axes"]["rows"]["order"]',
        "  new_table = old_table[order]",
    ]


def _change(item: Figure) -> str:
    """A value with its interval; a fraction and pp alike."""
    extent = interval_text(item.ci95, item.unit)
    return value_text(item.value, item.unit) + (f" ({extent})" if extent else "")


def _relative(path: Path) -> str:
    """The path from where the user is, or the whole of it when it lies elsewhere."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
