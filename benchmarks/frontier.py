"""How far linear and iterative get with less and more distillation: what decides how far they lie apart.

    python benchmarks/frontier.py outputs/bert     # 40 minutes on two cores; writes docs/FRONTIER.md, docs/figures/
    python benchmarks/frontier.py outputs/bert --steps 0 10 --out /tmp/frontier

Solves both modes of a finished run again, from its graphs and width curves, with other numbers of distillation steps.
Nothing is timed: latencies are those that the run's tables predict, quality is judged on its validation data.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from icd_lib.artifacts import Run, atomic_write
from icd_lib.codesign import solve
from icd_lib.errors import IcdError
from icd_lib.lock import load_lock
from icd_lib.stages.context import make_context
from icd_lib.stages.solve import load_problem

ROOT = Path(__file__).resolve().parent.parent
MARKERS = ("<!-- table: begin, written by benchmarks/frontier.py -->", "<!-- table: end -->")
MODES = ("linear", "iterative")
STEPS = (0, 140, 280, 560)
RUNGS = tuple(-percent / 100 for percent in range(5, 90, 5))  # -45 % in the middle, where a run starts too


def solve_again(folder: Path, steps: list[int], done: dict) -> dict:
    """{"steps": {n: {mode: attempts}}} of a finished run's scenario; what is in `done` is not computed again."""
    context = make_context(Run(load_lock(folder / "config.lock.json"), folder))
    problem = load_problem(context)
    usual = problem.settings
    found = {"scenario": context.get("scenario"), "min_cosine": usual.min_cosine, "steps": done.get("steps", {})}
    for count in steps:
        entry = found["steps"].setdefault(str(count), {})
        problem.settings = dataclasses.replace(
            usual, distill_steps=count, strengths=RUNGS, max_rounds=len(RUNGS), latency_target_rel=None
        )
        for mode in MODES:
            if mode not in entry:
                context.progress(f"{mode}, {count} steps")
                entry[mode] = solve(problem, mode).attempts
                yield found | {"steps": dict(sorted(found["steps"].items(), key=lambda item: int(item[0])))}


def reach(attempts: list[dict]) -> dict | None:
    """The strongest accepted attempt."""
    accepted = [attempt for attempt in attempts if attempt["accepted"]]
    return min(accepted, key=lambda attempt: attempt["predicted_latency_rel"], default=None)


def first_refused(attempts: list[dict], strongest: dict) -> dict | None:
    """The weakest refused attempt beyond the strongest accepted one."""
    beyond = [a for a in attempts if not a["accepted"] and a["strength"] < strongest["strength"] and "validation" in a]
    return max(beyond, key=lambda attempt: attempt["strength"], default=None)


def table(found: dict) -> str:
    """Markdown: per number of steps, where each mode ends, what stops it, and iterative relative to linear."""
    lines = [
        "| steps of distillation | linear ends at | refused | iterative ends at | refused | iterative vs linear |",
        "|---|---|---|---|---|---|",
    ]
    for steps, modes in found["steps"].items():
        cells, ends = [], []
        for mode in MODES:
            strongest = reach(modes[mode])
            if strongest is None:
                cells += ["nothing accepted", ""]
                continue
            ends.append(1 + strongest["predicted_latency_rel"])
            cells += [shown(strongest), shown(first_refused(modes[mode], strongest))]
        between = f"{100 * (ends[1] / ends[0] - 1):+.1f} %" if len(ends) == len(MODES) else "–"
        lines.append(f"| {steps} | {' | '.join(cells)} | {between} |")
    return "\n".join(lines)


def shown(attempt: dict | None) -> str:
    """Predicted latency against dense, and the validation figures that judge it."""
    if attempt is None:
        return "–"
    validation = attempt["validation"]
    cosine = f", cosine {validation['cosine']:.4f}" if "cosine" in validation else ""
    return f"{100 * attempt['predicted_latency_rel']:+.1f} % ({validation['drop_pp']:+.2f} pp{cosine})"


def draw(found: dict, path: Path) -> None:
    """Cosine to dense against predicted latency, every attempt of both modes."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for colour, (steps, modes) in enumerate(found["steps"].items()):
        for mode, style in zip(MODES, ("s--", "o-"), strict=True):
            points = sorted(
                (100 * a["predicted_latency_rel"], a["validation"]["cosine"]) for a in modes[mode] if "validation" in a
            )
            label = f"{mode}, {steps} steps"
            axes.plot(*zip(*points, strict=True), style, color=f"C{colour}", label=label, markersize=5, linewidth=1)
    axes.axhline(found["min_cosine"], color="black", linestyle=":", label=f"least allowed, {found['min_cosine']:g}")
    axes.set(xlabel="latency against dense that the tables predict, %", ylabel="mean cosine to dense, validation data")
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Solve, keep what is there after every mode, write table and figure; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of an encoder, with its graph and setup files")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="numbers of distillation steps")
    parser.add_argument("--out", type=Path, help="folder of the results (default: docs/figures, and docs/FRONTIER.md)")
    args = parser.parse_args()
    folder = args.out or ROOT / "docs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "frontier.json"
    done = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    try:
        for found in solve_again(args.run, args.steps, done):
            done = found
            atomic_write(kept, json.dumps(done, indent=1) + "\n")
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    draw(done, folder / "frontier.png")
    page = ROOT / "docs" / "FRONTIER.md"
    if args.out is None:
        before, _, rest = page.read_text(encoding="utf-8").partition(MARKERS[0])
        after = rest.partition(MARKERS[1])[2]
        atomic_write(page, f"{before}{MARKERS[0]}\n\n{table(done)}\n\n{MARKERS[1]}{after}")
    print(table(done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
