"""What a model with a state does while it generates: its throughput, and the tokens that its layouts say."""

from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.records.decoding import Decoding
from icd_lib.records.generation import EXPORTED_ARM, DecodeShape
from icd_lib.report.generation import decoding_of
from icd_lib.report.picture import COLOURS, FULL, Picture, canvas, finish, themed, title
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing, Table, badged
from icd_lib.report.words import interval_text, value_text

_OTHER = DoesNotApply("Generating, with a state", "this run's model has no state, or generates nothing")
_DRAWN = ("dense", "stock", "linear", "oneshot", "iterative")


def curve_of(found: Decoding) -> list[DecodeShape]:
    """The measurements that have the first one's prompt, by batch."""
    prompt = found.clock[0].context
    return sorted((shape for shape in found.clock if shape.context == prompt), key=lambda shape: shape.batch)


def tokens_per_s(shape: DecodeShape, arm: str) -> float:
    """Tokens of all texts in a second."""
    return 1000 * shape.batch / shape.arms[arm].step_ms.value


@badged("timing")
def throughput_table(results: Results) -> Table | Missing | DoesNotApply:
    """Tokens per second of every arm, by batch."""
    found = _found(results)
    if not isinstance(found, Decoding):
        return found
    shapes = curve_of(found)
    rows = [
        [label, *(f"{tokens_per_s(shape, arm):,.0f}" if arm in shape.arms else "" for shape in shapes)]
        for arm, label in _labels(shapes).items()
    ]
    columns = ["arm", *(f"batch {shape.batch}" for shape in shapes)]
    note = f"tokens per second of the whole batch after prompts of {shapes[0].context}, from the medians of the clock"
    return Table("Throughput while generating", columns, rows, note)


@badged("model")
def same_tokens_table(results: Results) -> Table | Missing | DoesNotApply:
    """Greedy texts of arms that compute one function."""
    found = _found(results)
    if not isinstance(found, Decoding):
        return found
    if not found.same_tokens:
        return Missing("The same tokens", "no two arms compute one function")
    rows = [
        [item.arm, item.other, f"{item.equal} of {item.texts}", item.tokens, _apart(item.first_apart)]
        for item in found.same_tokens
    ]
    columns = ["arm", "beside", "texts that are the same", "tokens each", "first that differs"]
    return Table("The same tokens", columns, rows, "greedy; layouts and kernels differ by rounding alone")


@themed
def throughput(results: Results) -> Picture | Missing | DoesNotApply:
    """Tokens per second against batch."""
    found = _found(results)
    if not isinstance(found, Decoding):
        return found
    shapes = curve_of(found)
    drawing, axes = canvas(3.6, 1, squeeze=False)
    panel = axes[0, 0]
    for arm in _DRAWN:
        there = [shape for shape in shapes if arm in shape.arms]
        if there:
            values = [tokens_per_s(shape, arm) for shape in there]
            panel.plot([shape.batch for shape in there], values, marker="o", color=COLOURS.get(arm, FULL), label=arm)
    panel.set_xscale("log", base=2)
    panel.set_xticks([shape.batch for shape in shapes], [str(shape.batch) for shape in shapes])
    panel.set(xlabel="texts at once", ylabel="tokens per second, all texts")
    panel.legend()
    title(drawing, f"Throughput after prompts of {shapes[0].context} tokens")
    return finish(drawing, "throughput", " ".join(lines(results)), "Tokens per second by batch.", results)


def lines(results: Results) -> list[str]:
    """In sentences: same tokens, and per token against the same function elsewhere, and against dense in its row."""
    found = _found(results)
    if not isinstance(found, Decoding):
        return []
    told = [
        f"{item.arm} and {item.other} say the same {item.tokens} tokens after {item.equal} of {item.texts} prompts."
        for item in found.same_tokens
    ]
    for shape in found.clock:
        rows = [(arm, other) for other in shape.arms if (arm := f"{RESULT}_{other}") in shape.arms]
        for arm, other in [(RESULT, "same_transform"), (DENSE, "stock"), *rows]:
            known = arm in shape.arms and arm != EXPORTED_ARM  # what is exported has a sentence of its own
            change = shape.arms[arm].step_vs.get(other) if known else None
            if change is not None:
                words = f"{value_text(change.value, 'fraction')} ({interval_text(change.ci95, 'fraction')})"
                told.append(f"At {shape.batch} × {shape.context}, {arm} takes {words} per token against {other}.")
    return told


def _found(results: Results) -> Decoding | Missing | DoesNotApply:
    return decoding_of(results) if "decode" in results.config else _OTHER


def _labels(shapes: list[DecodeShape]) -> dict[str, str]:
    """Arm → what it is, of all that were timed."""
    return {arm: entry.label for shape in shapes for arm, entry in shape.arms.items()}


def _apart(place: int | None) -> str:
    return "none" if place is None else f"token {place + 1}"
