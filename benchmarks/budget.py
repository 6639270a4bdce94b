"""Does the budget hold? The loop again with other seeds and other machine tables, each result judged on unseen text.

    python benchmarks/budget.py bert       # an hour on two cores; writes docs/figures/budget.json, docs/BUDGET.md
    python benchmarks/budget.py bert --seeds 0 1 --threads 2 --override codesign.selection_z=2 --out /tmp/budget

A seed draws other calibration texts and another order of distillation; tables are measured with so many threads, which
gives other plans. What judges is the same throughout (`data.split_seed`). Nothing is timed but the tables.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from scipy.stats import norm

from icd_lib.codesign.evidence import Problem, gather
from icd_lib.codesign.loop import solve
from icd_lib.errors import IcdError
from icd_lib.report.marked import with_marked
from icd_lib.run.artifacts import Run
from icd_lib.run.scenario import load_scenario
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.workloads.model.context import Context
from icd_lib.workloads.model.contexts import make_context
from icd_lib.workloads.model.graph import measure_tables, sensitivity_map
from icd_lib.workloads.model.solve import findings_of, make_inputs

# Other divisions of the same domains, to see whether the result is luck of the first one.
ROTATIONS = {
    "informal text unseen": {
        "seen": ["encyclopaedia", "news", "docstrings", "editorials", "verses", "glosses"],
        "selection": ["manual", "products", "examples"],
        "unseen": ["films", "tweets", "dialogues"],
    },
    "formal text unseen": {
        "seen": ["films", "tweets", "dialogues", "products", "examples", "manual"],
        "selection": ["docstrings", "editorials", "glosses"],
        "unseen": ["encyclopaedia", "news", "verses"],
    },
}
ROOT = Path(__file__).resolve().parent.parent
READINGS = ("own", "own_labelled", "dropin")


def context_of(name: str, overrides: list[str], folder: Path) -> Context:
    """The scenario's context, its files in a folder of this benchmark."""
    return make_context(Run(load_scenario(name, overrides), folder), lambda line: print("   ", line, flush=True))


def tables_of(name: str, overrides: list[str], threads: int, folder: Path) -> dict:
    """Width curves with so many threads."""
    context = context_of(name, [*overrides, f"threads={threads}"], folder)
    with torch_threads(threads):
        return measure_tables(context, make_inputs(context), context.progress)


def judge(name: str, overrides: list[str], seed: int, threads: int, tables: dict, folder: Path) -> dict:
    """Solve iterative with a seed and tables; what it loses where strengths are chosen and on the text that judges."""
    context = context_of(name, [*overrides, f"seed={seed}"], folder)
    inputs = make_inputs(context)
    observed, settings = inputs.observe(), inputs.settings
    findings = findings_of(tables, sensitivity_map(observed))
    solution = solve(Problem(inputs, gather(inputs, findings, observed)), "iterative")
    found = {"seed": seed, "threads": threads, "widths": solution.best.widths, "z": settings.selection_z}
    found["predicted_latency_rel"] = solution.best.predicted_latency_rel
    found["budgets"] = {"own": settings.quality_budget_pp, "dropin": settings.dropin_budget_pp}
    for split in (context.selecting, context.judging):
        result = context.suite.evaluate(solution.best.model, split)
        entry = context.suite.compare(result, context.dense_result(split))
        found[split] = {reading: entry[reading] for reading in READINGS if entry.get(reading)}
        found[split] |= {"cosine": entry["cosine"], "worst_domain": entry["worst_domain"]}
    return found


def rotate(name: str, overrides: list[str], tables: dict, folder: Path) -> list[dict]:
    """One solve per rotation of the groups; dense results of new divisions are computed here."""
    rows = []
    for words, groups in ROTATIONS.items():
        print(words, flush=True)
        given = [f"data.{group}={json.dumps(domains)}" for group, domains in groups.items()]
        row = judge(name, [*overrides, *given], 0, 2, tables, folder / words.replace(" ", "-"))
        rows.append({"rotation": words, "groups": groups} | row)
    return rows


def rotation_table(rows: list[dict], judging: str) -> str:
    """Markdown: one line per rotation."""
    lines = [
        "| division | unseen domains | predicted latency | own | labelled tasks | drop-in | cosine | worst domain |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        entry = row[judging]
        cells = [row["rotation"], ", ".join(row["groups"]["unseen"]), f"{100 * row['predicted_latency_rel']:+.1f} %"]
        cells += [shown(entry.get(reading)) for reading in READINGS]
        lines.append(f"| {' | '.join(cells)} | {entry['cosine']['value']:.4f} | {entry['worst_domain']} |")
    return "\n".join(lines)


def table(rows: list[dict], judging: str) -> str:
    """Markdown: one line per solve, and how often each budget was exceeded beside what the bound allows."""
    lines = [
        "| seed | tables | predicted latency | own where chosen | own, unseen | labelled tasks, unseen | drop-in where "
        "chosen | drop-in, unseen | cosine, unseen |",
        "|---" * 9 + "|",
    ]
    for row in rows:
        chosen, unseen = row["selection" if judging == "unseen" else "validation"], row[judging]
        cells = [f"{100 * row['predicted_latency_rel']:+.1f} %"]
        cells += [shown(chosen["own"]), shown(unseen["own"]), shown(unseen.get("own_labelled"))]
        cells += [shown(chosen["dropin"]), shown(unseen["dropin"]), f"{unseen['cosine']['value']:.4f}"]
        lines.append(f"| {row['seed']} | {row['threads']} thread{'s' * (row['threads'] > 1)} | {' | '.join(cells)} |")
    allowed = 1 - norm.cdf(rows[0]["z"])
    for reading, budget in rows[0]["budgets"].items():
        if budget is not None:
            over = sum(row[judging][reading]["drop_pp"] > budget for row in rows)
            lines += [
                "",
                f"{reading}: {over} of {len(rows)} results exceed {budget:g} pp on {judging} text; the bound of "
                f"{rows[0]['z']:g} standard errors allows {100 * allowed:.0f} % of them, {allowed * len(rows):.1f}.",
            ]
    return "\n".join(lines)


def shown(item: dict | None) -> str:
    """A loss with its standard error."""
    return "–" if item is None else f"{item['drop_pp']:+.2f} ± {item['se_pp']:.2f}"


def main() -> int:
    """Solve what is not done yet, keep every row at once, write the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", help="an encoder's scenario, such as bert")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of the machine tables")
    parser.add_argument("--override", action="append", default=[], metavar="KEY.PATH=VALUE")
    parser.add_argument("--out", type=Path, help="folder of the results (default: docs/figures, and docs/BUDGET.md)")
    parser.add_argument("--rotate", action="store_true", help="also solve with the groups of domains exchanged")
    parser.add_argument("--resume", action="store_true", help="keep the rows of an interrupted call")
    args = parser.parse_args()
    folder = args.out or ROOT / "docs" / "figures"
    file = folder / "budget.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if args.resume and file.is_file() else []
    done = {(row["seed"], row["threads"]) for row in rows}
    try:
        solved_with = load_scenario(args.scenario, args.override).get("threads")
        with tempfile.TemporaryDirectory() as scratch, torch_threads(solved_with):
            for threads in args.threads:
                tables = tables_of(args.scenario, args.override, threads, Path(scratch) / "tables")
                for seed in args.seeds:
                    if (seed, threads) not in done:
                        print(f"seed {seed}, tables of {threads} threads", flush=True)
                        run = Path(scratch) / f"{seed}-{threads}"
                        rows.append(judge(args.scenario, args.override, seed, threads, tables, run))
                        atomic_write(file, to_json(rows))
            rotated = rotate(args.scenario, args.override, tables, Path(scratch)) if args.rotate else []
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    judging = load_scenario(args.scenario, args.override).get("codesign.budget_on")
    texts = {"budget": table(sorted(rows, key=lambda row: (row["threads"], row["seed"])), judging)}
    if rotated:
        atomic_write(folder / "rotation.json", to_json(rotated))
        texts["rotation"] = rotation_table(rotated, judging)
    page = ROOT / "docs" / "BUDGET.md"
    for name, text in texts.items():
        print(text)
        if args.out is None:
            atomic_write(page, with_marked(page.read_text(encoding="utf-8"), name, text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
