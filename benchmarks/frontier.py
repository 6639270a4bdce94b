"""Latency against loss on seen and on unseen text, every arm at the same latencies: the frontier of FRONTIER.md.

    python benchmarks/frontier.py outputs/bert                        # 25 minutes on two cores
    python benchmarks/frontier.py outputs/bert --modes iterative --targets -0.2 -0.3 --out /tmp/frontier
    python benchmarks/frontier.py outputs/bert --runtime openvino --precision int8 --out /tmp/frontier

Every arm of a finished run is solved again for given latencies, without a budget, from the run's graphs. It is planned,
quantised and judged for the place where the run's models are deployed, or for the one that is named. Latencies are
those that width curves predict: the run's own, or those of the named place, which are measured once a machine.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from icd_lib.codesign.evidence import Problem
from icd_lib.codesign.loop import solve
from icd_lib.errors import ConfigError, IcdError, TransformError
from icd_lib.report.marked import with_marked
from icd_lib.report.picture import COLOURS, FULL, MARKERS, canvas, legend, png_bytes, themed
from icd_lib.run.artifacts import Run
from icd_lib.run.lock import load_lock
from icd_lib.runtimes import OWN, PRECISIONS, REFERENCE, RUNTIMES, rows_of
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.contexts import make_context
from icd_lib.workloads.model.deploy import named
from icd_lib.workloads.model.graph import measure_tables
from icd_lib.workloads.model.solve import latency_tables, load_problem

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "FRONTIER.md"
MODES = ("iterative", "linear", "oneshot")
TARGETS = (-0.1, -0.2, -0.3, -0.4)
READINGS = {"own": "own", "own_labelled": "own, labelled tasks", "dropin": "drop-in"}


def deploy_in(context: Context, runtime: str, precision: str) -> None:
    """Have everything planned and judged for a runtime; `ConfigError` where that names none or several."""
    names = rows_of(runtime, precision)
    if len(names) != 1:
        known = ", ".join(f"{item.engine} {item.precision}" for item in (RUNTIMES[name] for name in OWN))
        raise ConfigError(f"--runtime {runtime} --precision {precision} is no one place; name one of {known}")
    named(context, names[0], (runtime, precision))
    context.target = context.deployed(names[0])


def problem_of(context: Context, mode: str) -> Problem:
    """The run's problem, with width curves of the place where its models are deployed now."""
    problem, tables = load_problem(context, mode), context.run.read_json("graph/tables.json")
    if tables.get("runtime", REFERENCE) == context.target.row.name:
        return problem
    measured = measure_tables(context, problem.inputs, context.progress)
    evidence = problem.evidence
    findings = dataclasses.replace(evidence.findings, tables=latency_tables(measured), dense_ms=measured["dense_ms"])
    return dataclasses.replace(problem, evidence=dataclasses.replace(evidence, findings=findings))


def point(context: Context, problem: Problem, mode: str, target: float) -> dict:
    """One arm at one latency: its readings on every judged split, as it is deployed."""
    settings = problem.inputs.settings.but(
        strengths=(target,),
        max_rounds=1,
        quality_budget_pp=100.0,
        dropin_budget_pp=None,
        min_cosine=None,
        latency_target_rel=None,
    )
    varied = dataclasses.replace(problem, inputs=dataclasses.replace(problem.inputs, settings=settings))
    solution = solve(varied, mode)
    found = {"runtime": context.target.row.name, "mode": mode, "target": target, "widths": solution.best.widths}
    found["predicted_latency_rel"] = solution.best.plan.predicted_latency_rel if solution.best.plan else None
    with context.target.judged_form(solution.best.model, context.example) as deployed:
        for split in context.judged:
            result = context.suite.evaluate(deployed, split)
            entry = context.suite.compare(result, context.dense_result(split))
            found[split] = {key: entry[key] for key in (*READINGS, "cosine", "worst_domain") if entry.get(key)}
    return found


def table(points: list[dict]) -> str:
    """Markdown: a line per arm and latency, unseen text and seen text."""
    splits = [split for split in ("unseen", "seen") if split in points[0]]
    heads = [f"{words}, {split}" for split in splits for words in (*READINGS.values(), "cosine")]
    lines = [f"| arm | predicted latency | {' | '.join(heads)} | worst domain |", "|---" * (len(heads) + 3) + "|"]
    for item in sorted(points, key=lambda p: (-p["target"], MODES.index(p["mode"]))):
        if item["predicted_latency_rel"] is None:
            continue
        cells = [cell for split in splits for cell in cells_of(item[split])]
        latency = f"{100 * item['predicted_latency_rel']:+.1f} %"
        lines.append(f"| {item['mode']} | {latency} | {' | '.join(cells)} | {item[splits[0]]['worst_domain']} |")
    return "\n".join(lines)


def cells_of(entry: dict) -> list[str]:
    """The readings of one split."""
    shown = [f"{entry[key]['drop_pp']:+.2f} ± {entry[key]['se_pp']:.2f}" if key in entry else "–" for key in READINGS]
    return [*shown, f"{entry['cosine']['value']:.4f}"]


@themed
def draw(points: list[dict], path: Path) -> None:
    """Each reading on unseen text against predicted latency, with 95 % intervals."""
    figure, axes = canvas(0.9 + 2.4 * len(READINGS), len(READINGS), sharex=True)
    for panel, (reading, words) in zip(axes, READINGS.items(), strict=True):
        for mode, line in zip(MODES, ("-", "--", ":"), strict=True):
            chosen = [p for p in points if p["mode"] == mode and p["predicted_latency_rel"] is not None]
            chosen.sort(key=lambda p: p["predicted_latency_rel"])
            if chosen:
                losses = [p["unseen"][reading] for p in chosen]
                panel.errorbar(
                    [100 * p["predicted_latency_rel"] for p in chosen],
                    [item["drop_pp"] for item in losses],
                    yerr=[1.96 * item["se_pp"] for item in losses],
                    fmt=MARKERS[mode] + line,
                    color=COLOURS[mode],
                    capsize=3,
                    label=mode,
                )
        panel.axhline(0, color=FULL, linewidth=0.6)
        panel.set(title=f"{words}, unseen text", ylabel="lost, pp (95 % CI)")
    label = RUNTIMES[points[0].get("runtime", REFERENCE)].label
    axes[-1].set_xlabel(f"predicted latency against dense in the same place, %\n{label}")
    legend(figure, axes[0])
    atomic_write(path, png_bytes(figure))


def main() -> int:
    """Solve what is not done yet, keep every point at once, write table and figure; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run of an encoder, with its graph and setup files")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--targets", type=float, nargs="+", default=list(TARGETS))
    parser.add_argument("--runtime", help="where to plan and judge: an engine such as openvino (default: as the run)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of --runtime")
    parser.add_argument("--out", type=Path, help="folder of the results (default: docs/figures, and docs/FRONTIER.md)")
    parser.add_argument("--resume", action="store_true", help="keep the points of an interrupted call for this run")
    args = parser.parse_args()
    folder = args.out or ROOT / "docs" / "figures"
    try:
        context = make_context(Run(load_lock(args.run / "config.lock.json"), args.run))
        with torch_threads(context.get("threads")):
            if args.runtime is not None:
                deploy_in(context, args.runtime, args.precision)
            name = part_of(context.target.row.name)
            if args.out is None:
                with_marked(PAGE.read_text(encoding="utf-8"), name, "")  # before minutes are spent on its table
            file = folder / f"{name}.json"
            points = json.loads(file.read_text(encoding="utf-8")) if args.resume and file.is_file() else []
            done = {(item["mode"], item["target"]) for item in points}
            for mode in args.modes:
                problem = problem_of(context, mode)
                for target in args.targets:
                    if (mode, target) not in done:
                        print(f"{mode} at {target:+.0%}", flush=True)
                        try:
                            points.append(point(context, problem, mode, target))
                        except TransformError as error:
                            print(f"  {error}", flush=True)
                            continue
                        atomic_write(file, to_json(points))
        if points:
            draw(points, folder / f"{name}.png")
            print(table(points))
        if args.out is None and points:
            atomic_write(PAGE, with_marked(PAGE.read_text(encoding="utf-8"), name, table(points)))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def part_of(runtime: str) -> str:
    """What files of a runtime's points are called, and the part of the page that their table is."""
    return "frontier" if runtime == REFERENCE else f"frontier_{runtime}"


if __name__ == "__main__":
    sys.exit(main())
