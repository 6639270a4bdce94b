"""How far linear and iterative get with less and more distillation: what decides how far they lie apart.

    python benchmarks/frontier.py outputs/bert     # 20 minutes on two cores; writes docs/FRONTIER.md, docs/figures/
    python benchmarks/frontier.py outputs/bert --case 10 16 --case 0 64 --out /tmp/frontier

Solves both modes of a finished run again, from its graphs and width curves, with other distillation and other tiles.
Nothing is timed: latencies are those that the run's tables predict, quality is judged on its validation data.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from icd_lib.artifacts import Run, atomic_write
from icd_lib.codesign import solve
from icd_lib.errors import ConfigError, IcdError
from icd_lib.lock import load_lock
from icd_lib.stages.context import make_context
from icd_lib.stages.solve import load_problem

ROOT = Path(__file__).resolve().parent.parent
MARKERS = ("<!-- table: begin, written by benchmarks/frontier.py -->", "<!-- table: end -->")
MODES = ("linear", "iterative")
CASES = ((0, 16), (140, 16), (280, 16), (140, 64))  # steps of distillation, elements of a tile
RUNGS = tuple(-percent / 100 for percent in range(5, 90, 5))  # -45 % in the middle, where a run starts too


def solve_again(folder: Path, cases: list[tuple[int, int]], done: list[dict]) -> Iterator[None]:
    """Add {"steps", "tile", mode: attempts} of every case to `done`; yields after every mode, solves none twice."""
    context = make_context(Run(load_lock(folder / "config.lock.json"), folder))
    problem = load_problem(context)
    usual = problem.settings
    if usual.min_cosine is None:
        raise ConfigError(f"{folder} was judged without codesign.min_cosine; give an encoder's, such as outputs/bert")
    for steps, tile in cases:
        case = next((case for case in done if (case["steps"], case["tile"]) == (steps, tile)), None)
        if case is None:
            case = {"steps": steps, "tile": tile, "min_cosine": usual.min_cosine}
            done.append(case)
        settings = dataclasses.replace(
            usual, distill_steps=steps, tile=tile, strengths=RUNGS, max_rounds=len(RUNGS), latency_target_rel=None
        )
        known_curves = problem.known_curves if tile == usual.tile else None
        varied = dataclasses.replace(problem, settings=settings, known_curves=known_curves)
        for mode in MODES:
            if mode not in case:
                context.progress(f"{mode}, {steps} steps of distillation, tiles of {tile}")
                case[mode] = solve(varied, mode).attempts
                yield


def reach(attempts: list[dict]) -> dict | None:
    """The strongest accepted attempt."""
    accepted = [attempt for attempt in attempts if attempt["accepted"]]
    return min(accepted, key=lambda attempt: attempt["predicted_latency_rel"], default=None)


def first_refused(attempts: list[dict], strongest: dict) -> dict | None:
    """The weakest refused attempt beyond the strongest accepted one."""
    beyond = [a for a in attempts if not a["accepted"] and a["strength"] < strongest["strength"] and "validation" in a]
    return max(beyond, key=lambda attempt: attempt["strength"], default=None)


def crossing(attempts: list[dict], least: float) -> float | None:
    """Predicted latency at which the cosine is `least`, linear between the attempts on both sides of it."""
    points = sorted((a["validation"]["cosine"], a["predicted_latency_rel"]) for a in attempts if "validation" in a)
    above = [point for point in points if point[0] >= least]
    below = [point for point in points if point[0] < least]
    if not above or not below:
        return None
    return float(np.interp(least, *zip(below[-1], above[0], strict=True)))


def table(cases: list[dict]) -> str:
    """Markdown: per case, where each mode ends and what stops it; iterative vs linear, there and at least cosine."""
    least = cases[0]["min_cosine"]
    lines = [
        "| distillation steps | tile | linear ends at | refused | iterative ends at | refused | iterative vs linear "
        f"| at {least:g} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in cases:
        cells, ends = [], []
        for mode in MODES:
            strongest = reach(case[mode])
            if strongest is None:
                cells += ["nothing accepted", ""]
                continue
            ends.append(1 + strongest["predicted_latency_rel"])
            cells += [shown(strongest), shown(first_refused(case[mode], strongest))]
        crossed = [1 + end for mode in MODES if (end := crossing(case[mode], least)) is not None]
        between = [f"{100 * (e[1] / e[0] - 1):+.1f} %" if len(e) == len(MODES) else "–" for e in (ends, crossed)]
        lines.append(f"| {case['steps']} | {case['tile']} | {' | '.join([*cells, *between])} |")
    return "\n".join(lines)


def shown(attempt: dict | None) -> str:
    """Predicted latency against dense, and the validation figures that judge it."""
    if attempt is None:
        return "–"
    validation = attempt["validation"]
    cosine = f", cosine {validation['cosine']:.4f}" if "cosine" in validation else ""
    return f"{100 * attempt['predicted_latency_rel']:+.1f} % ({validation['drop_pp']:+.2f} pp{cosine})"


def draw(cases: list[dict], path: Path) -> None:
    """Cosine to dense against predicted latency, every attempt of both modes."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for colour, case in enumerate(cases):
        for mode, style in zip(MODES, ("s--", "o-"), strict=True):
            points = sorted(
                (100 * a["predicted_latency_rel"], a["validation"]["cosine"]) for a in case[mode] if "validation" in a
            )
            label = f"{mode}, {case['steps']} steps, tile {case['tile']}"
            axes.plot(*zip(*points, strict=True), style, color=f"C{colour}", label=label, markersize=5, linewidth=1)
    least = cases[0]["min_cosine"]
    axes.axhline(least, color="black", linestyle=":", label=f"least allowed, {least:g}")
    axes.set(xlabel="latency against dense that the tables predict, %", ylabel="mean cosine to dense, validation data")
    figure.legend(loc="outside lower center", fontsize=8, ncols=3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Solve, keep what is there after every mode, write table and figure; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of an encoder, with its graph and setup files")
    parser.add_argument(
        "--case", type=int, nargs=2, action="append", metavar=("STEPS", "TILE"), help="what to solve (repeatable)"
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: docs/figures, and docs/FRONTIER.md)")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted call for this run stopped")
    args = parser.parse_args()
    folder = args.out or ROOT / "docs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "frontier.partial.json"
    cases = json.loads(partial.read_text(encoding="utf-8")) if args.resume and partial.is_file() else []
    try:
        for _ in solve_again(args.run, args.case or CASES, cases):
            atomic_write(partial, json.dumps(cases, indent=1) + "\n")
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    partial.replace(folder / "frontier.json")
    draw(cases, folder / "frontier.png")
    page = ROOT / "docs" / "FRONTIER.md"
    if args.out is None:
        before, _, rest = page.read_text(encoding="utf-8").partition(MARKERS[0])
        after = rest.partition(MARKERS[1])[2]
        atomic_write(page, f"{before}{MARKERS[0]}\n\n{table(cases)}\n\n{MARKERS[1]}{after}")
    print(table(cases))
    return 0


if __name__ == "__main__":
    sys.exit(main())
