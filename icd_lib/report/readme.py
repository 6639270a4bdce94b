"""The README's numbers, from the committed reference runs: `python -m icd_lib.report.readme [--check]`."""

import sys
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.experiment.comparisons import AA_CONTROL, COMPARISONS
from icd_lib.metric import Figure
from icd_lib.paths import project_root
from icd_lib.records.verdict import Unknown, Verdict
from icd_lib.report.compared import gates_a_prompt, judged, latency_states, other_arm, states_text
from icd_lib.report.marked import with_marked
from icd_lib.report.results import Results, check_current
from icd_lib.report.words import processor_text
from icd_lib.storage.atomic import atomic_write

START, END = "<!-- numbers: start -->", "<!-- numbers: end -->"
GENERAL, SPECIALISED = "outputs/reference/bert", "outputs/reference/bert_domain"


def numbers_table(root: Path | None = None) -> str:
    """Markdown: latency with intervals, quality lost on unseen and seen text, the gates, from the runs' verdicts."""
    root = root or project_root()
    results = load_reference(root / GENERAL)
    parts = [latency_table(results), quality_table(results), told(results)]
    if (root / SPECIALISED).is_dir():
        other = load_reference(root / SPECIALISED)
        parts += [speed(other), quality_table(other), told(other)]
    return "\n\n".join(parts)


def load_reference(folder: Path) -> Results:
    """A committed run; `ArtifactError` when it is not there or was judged otherwise than now."""
    results = Results.load(folder)
    if results.verdict is None or results.lock is None:
        raise ArtifactError(f"{folder} holds no judged run; make it again with run_all.py")
    check_current(results.verdict, results.lock, folder)
    return results


def latency_table(results: Results) -> str:
    """Every comparison at every shape, what the gates judge first."""
    verdict, judged_key = results.verdict, results.gates_comparison
    eager = [key for key in ("vs_eager", "any_shape_vs_eager") if _was_timed(verdict, key)]
    named = [*latency_states(results), "vs_dense", *eager, AA_CONTROL]
    titles = {key: COMPARISONS[key].pairs[results.workload].title for key in named}
    if gates_a_prompt(results):
        titles[judged_key] = f"**{titles[judged_key]}** (the gates judge this)"
    titles[AA_CONTROL] = "A/A control (dense vs dense)"
    shapes = list(verdict.section(judged_key).shapes)
    lines = [
        "| latency, relative change (95 % interval) | " + " | ".join(shapes) + " |",
        "|---" * (len(shapes) + 1) + "|",
    ]
    for key, title in titles.items():
        cells = " | ".join(as_change(verdict.section(key).shapes[shape]) for shape in shapes)
        lines.append(f"| {title} | {cells} |")
    return "\n".join(lines)


def _was_timed(verdict: Verdict, key: str) -> bool:
    return key in verdict.sections and not any(item.is_missing for item in verdict.sections[key].shapes.values())


def quality_table(results: Results) -> str:
    """What iterative loses against dense on unseen and on seen text, in every reading."""
    quality = results.verdict.quality
    if isinstance(quality, Unknown):
        return f"Quality was not measured: {quality.reason}."
    name = results.scenario
    lines = [f"| `{name}`: lost on | own | labelled tasks only | drop-in | cosine | worst domain |", "|---" * 6 + "|"]
    for split in ("unseen", "seen"):
        if split in quality:
            lost = quality[split]
            losses = [as_drop(lost.reading(reading)) for reading in ("own", "own_labelled", "dropin")]
            cosine = f"{lost.cosine.value:.3f}" if lost.cosine else "–"
            whose = ", the budget's" if split == results.judging else ""
            lines.append(f"| {split} text{whose} | {' | '.join(losses)} | {cosine} | {lost.worst_domain} |")
    return "\n".join(lines)


def speed(results: Results) -> str:
    """A scenario's latency against dense, in a line."""
    shapes = results.verdict.section("vs_dense").shapes
    changes = "; ".join(f"{as_change(item)} at {shape}" for shape, item in shapes.items())
    return f"`{results.scenario}` ({OUTSIDE}), latency against dense: {changes}."


OUTSIDE = "specialised: the budget is for the calibration's own domain"


def told(results: Results) -> str:
    """The gates, the comparisons beside them, the machine and the badges."""
    verdict, environment = results.verdict, results.setup["environment"]
    lines = [
        f"Gates of `{results.scenario}` ({judged(results)}; budget {results.budget_pp:g} pp of own quality on "
        f"{results.judging} text): smoke {verdict.smoke.status}, strict {verdict.strict.status}."
    ]
    others = [
        f"iterative vs {other_arm(results, key)}: {states_text(states)}"
        for key, states in latency_states(results).items()
        if key != results.gates_comparison and states
    ]
    if others:
        lines.append(f"Put to the same limits of latency: {'; '.join(others)}.")
    threads = environment["threads"]["torch"]
    lines.append(f"Deployed in: {results.deployed or results.eager}; all arms, the dense model too, are timed there.")
    lines.append(f"Machine: {processor_text(environment['cpu'])}; {threads} threads.")
    badges = results.badges_about("model", "layout", "timing")
    return "\n".join([*lines, f"Badges: {'; '.join(badges)}."] if badges else lines)


def as_change(item: Figure) -> str:
    """A relative change in percent with its interval."""
    if item.is_missing:
        return f"not measured ({item.reason})"
    low, high = item.ci95
    return f"{100 * item.value:+.1f} % ({100 * low:+.1f} … {100 * high:+.1f})"


def as_drop(item: Figure) -> str:
    """A loss in percentage points with its interval."""
    if item.is_missing:
        return f"not measured ({item.reason})"
    low, high = item.ci95
    return f"{item.value:+.3f} pp ({low:+.3f} … {high:+.3f})"


def with_numbers(text: str) -> str:
    """The README with its table made anew; `ArtifactError` when the markers are missing."""
    return with_marked(text, "numbers", numbers_table())


def main(arguments: list[str]) -> int:
    """Write the table, or with --check exit 1 when the README's differs from the reference run's."""
    path = project_root() / "README.md"
    text = path.read_text(encoding="utf-8")
    made = with_numbers(text)
    if "--check" in arguments:
        print("README numbers: " + ("as in the reference run" if made == text else "differ from the reference run"))
        return int(made != text)
    atomic_write(path, made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
