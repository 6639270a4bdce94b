"""What a check on a GPU settles, as a page: `python -m icd_lib.release.gpu_page FOLDER` writes FOLDER/gpu-check.md.

FOLDER is what `scripts/gpu_check.sh` wrote: gpu_check.txt, a line for every step; reference/<scenario>, its scrubbed
runs; gpu.json of `benchmarks/gpu.py`. Everything else is read from claims.yaml and the committed sources.
"""

import json
import math
import sys
from pathlib import Path

from icd_lib.errors import EXIT_OK, ArtifactError, IcdError
from icd_lib.experiment.arms import DENSE, RESULT
from icd_lib.experiment.gates import GATES
from icd_lib.metric import Figure
from icd_lib.paths import project_root, user_path
from icd_lib.records.measured import Ladder
from icd_lib.records.verdict import VERDICT, Verdict
from icd_lib.release.claims import Claim, compare, load_claims
from icd_lib.report.compared import compared, state_text
from icd_lib.report.results import Results
from icd_lib.report.words import figure_text, value_text
from icd_lib.scrub.text import scrub_text
from icd_lib.storage.atomic import atomic_write

BENCHMARK = "benchmarks/gpu.py"
LEDGER, PAGE, RUNS = "gpu_check.txt", "gpu-check.md", "reference"
KEPT = "outputs/reference/gpu/"  # where what such a check leaves is committed
_METRICS = {
    "latency_rel": "latency",
    "l2_pp": "L2 hit rate",
    "ept_rel": "energy per token",
    "quality_drop_pp": "quality lost against dense",
}


def page(folder: Path, root: Path) -> str:
    """The page of a check in `folder`; root: of the project. Raises `ArtifactError` where there was no check."""
    try:
        told, *steps = (folder / LEDGER).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} holds no check ({LEDGER}); make one with scripts/gpu_check.sh") from error
    runs = sorted(path.parent for path in (folder / RUNS).glob("*/config.lock.json"))
    parts = ["# What a check on a GPU settles", f"{told}. Written by `python -m icd_lib.release.gpu_page`."]
    parts += ["## Steps", "\n".join(f"- {step}" for step in steps) or "None was begun."]
    parts += ["## What the specification asks", *(told_of(Results.load(run)) for run in runs)]
    if not runs:
        parts.append("No scenario has left a run.")
    claims = claims_table(load_claims(root), folder, root, _board_of(folder, told))
    return "\n\n".join([*parts, "## Claims", claims]) + "\n"


def told_of(results: Results) -> str:
    """A scenario's judged comparison beside the limits of both gates, and how it compares with the runtimes there."""
    heading = f"### {results.scenario}"
    verdict = results.verdict
    if verdict is None:
        return f"{heading}\n\nIt ended before there was a verdict ({VERDICT})."
    where = f"deployed in {results.deployed or results.eager}" if results.on_gpu else "on the CPU"
    lines = [heading, f"{compared(results)}; {where}.", gates_table(verdict, results.gates_comparison)]
    lines += against_runtimes(results)
    if results.badges:
        lines.append(f"Badges: {'; '.join(results.badges)}.")
    return "\n\n".join(lines)


def gates_table(verdict: Verdict, comparison: str) -> str:
    """Metric, what was measured in the judged comparison, and whether each gate's limit is met."""
    section = verdict.section(comparison)
    found = section.metrics | verdict.judged
    found |= {"quality_drop_pp": lost} if (lost := verdict.section("vs_dense").lost) else {}
    checks = {gate: verdict.gate(gate).checks for gate in GATES}
    judged = {name for states in checks.values() for name in states}
    asked = sorted(judged, key=lambda name: (list(_METRICS).index(name) if name in _METRICS else len(_METRICS), name))
    lines = [f"| | measured | {' | '.join(GATES)} |", "|---" * (2 + len(GATES)) + "|"]
    for name in asked:
        states = [state_text(states[name]) if name in states else "–" for states in checks.values()]
        lines.append(f"| {_METRICS.get(name, f'`{name}`')} | {figure_text(found.get(name))} | {' | '.join(states)} |")
    whole = [f"**{state_text(verdict.gate(gate).status)}**" for gate in GATES]
    return "\n".join([*lines, f"| all at once | | {' | '.join(whole)} |"])


def against_runtimes(results: Results) -> list[str]:
    """At every shape: the result in its fastest runtime against dense in dense's fastest, of those in the ladder."""
    ladder = results.ladder
    if ladder is None or not ladder.shapes:
        return []
    lines = []
    for shape in ladder.shapes:
        found = [(ladder.by_latency(arm, shape) or [""])[0] for arm in (DENSE, RESULT)]
        if not all(found):
            continue
        dense, result = (latency_in(ladder, row, arm, shape) for row, arm in zip(found, (DENSE, RESULT), strict=True))
        ratio, interval = ratio_between(ladder, found[1], found[0], shape)
        among = ", ".join(f"`{name}`" for name, entry in ladder.runtimes.items() if entry.is_measured)
        lines.append(
            f"At {shape}: iterative takes {value_text(result, 'ms')} in `{found[1]}`, dense "
            f"{value_text(dense, 'ms')} in `{found[0]}`, the best of {among}: × {ratio:.3f}{interval}."
        )
    return lines


def ratio_between(ladder: Ladder, result_row: str, dense_row: str, shape: str) -> tuple[float, str]:
    """Latency of the result in its runtime over dense's in dense's, and its 95 % interval in words.

    In one runtime both share rounds. Two runtimes are timed one after the other, each beside dense in the reference
    runtime; then it is the ratio of the two against that, and relative half-widths h1, h2 make sqrt(h1² + h2²).
    """
    result = ladder.runtimes[result_row].shapes[shape].arms[RESULT]
    dense = ladder.runtimes[dense_row].shapes[shape].arms[DENSE]
    if result_row == dense_row and (bounds := _factors(result.get("vs_baseline"))):
        ratio, low, high = bounds
    elif (over := _factors(result.get("vs_eager"))) and (under := _factors(dense.get("vs_eager"))):
        ratio = over[0] / under[0]
        low = ratio * math.exp(-math.hypot(math.log(over[0] / over[1]), math.log(under[2] / under[0])))
        high = ratio * math.exp(math.hypot(math.log(over[2] / over[0]), math.log(under[0] / under[1])))
    else:
        medians = [latency_in(ladder, row, arm, shape) for row, arm in ((result_row, RESULT), (dense_row, DENSE))]
        return medians[0] / medians[1], " (medians; the two were not timed beside each other, so there is no interval)"
    return ratio, f" (95 %: {low:.3f} to {high:.3f})"


def _factors(change: Figure | None) -> tuple[float, float, float] | None:
    """A change as a factor with its bounds; None without an interval of positive factors."""
    if change is None or change.value is None or change.ci95 is None or change.ci95[0] <= -1:
        return None
    return 1 + change.value, 1 + change.ci95[0], 1 + change.ci95[1]


def latency_in(ladder: Ladder, runtime: str, arm: str, shape: str) -> float:
    """Median milliseconds of an arm in a runtime of the ladder."""
    value = ladder.runtimes[runtime].shapes[shape].arms[arm]["latency_ms"].value
    return math.nan if value is None else value


def _board_of(folder: Path, told: str) -> str:
    """The device's whole name: what the benchmark says, else what the check began with."""
    return _benchmark(folder).get("device", {}).get("name") or told.partition(" with CUDA ")[0]


def _benchmark(folder: Path) -> dict:
    """What `benchmarks/gpu.py` left in this check; nothing where it did not run to its end."""
    steps = (folder / LEDGER).read_text(encoding="utf-8").splitlines()
    if not any(step.startswith(f"{BENCHMARK}: exit ") for step in steps):
        return {}
    try:
        found = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def claims_table(claims: list[Claim], folder: Path, root: Path, device: str) -> str:
    """Every claim that takes a GPU, and whether this check settles it."""
    rows = [claim for claim in claims if claim.needs_cuda]
    if not rows:
        return "claims.yaml has no claim that takes a GPU."
    lines = ["| claim | states | here | settled |", "|---|---|---|---|"]
    for claim in rows:
        here, settled = settles(claim, folder, root, device)
        lines.append(f"| `{claim.id}`: {claim.says} | {claim.stated} ({claim.hardware}) | {here} | {settled} |")
    return "\n".join(lines)


def settles(claim: Claim, folder: Path, root: Path, device: str) -> tuple[str, str]:
    """What the check found of a claim, and whether it holds; a figure of another device settles nothing."""
    benchmark = _benchmark(folder)
    try:
        if not benchmark:
            raise ArtifactError(f"{folder} holds no benchmark of this check")
        holds, words = compare(claim, root, {KEPT: f"{folder.resolve()}/"})
    except ArtifactError:
        if why := _why_missing(claim, benchmark):
            return "–", f"no: {why}"
        return "–", f"no: it was not made again here; run `{claim.command}`"
    if not claim.is_of(device):
        return words, f"no: it is of {claim.board}, and this is {device}"
    return words, "yes: it holds" if holds else "yes: BROKEN"


def _why_missing(claim: Claim, benchmark: dict) -> str:
    """What the benchmark says of the step that measures a claim's figure; empty where it says nothing."""
    figure = claim.source.partition(" : ")[2]
    for key, words in (("not_measured", "not measured here"), ("left_out", "left out"), ("failed", "failed")):
        for entry in benchmark.get(key, []):
            if "where" in entry and f"{figure} / ".startswith(f"{entry['where']} / "):
                return f"{words}, {entry['reason']}"
    return ""


def main(given: list[str]) -> int:
    """Write the page; returns the exit code."""
    if len(given) != 1:
        print("usage: python -m icd_lib.release.gpu_page FOLDER", file=sys.stderr)
        return 2
    folder = user_path(given[0])
    try:
        atomic_write(folder / PAGE, scrub_text(page(folder, project_root())))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
