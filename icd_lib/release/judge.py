"""Judge finished runs again from their raw samples, without notebooks: `python -m icd_lib.validate RUN [RUN ...]`.

Every figure and verdict of a run folder is computed again and compared with what the run says; several runs of a
scenario (other seeds, other machines) become one table. Nothing is written unless --csv asks for it. Exit code 0, 1 if
a smoke gate is not met, 7 if a file does not say what its samples say.
"""

import argparse
import csv
import io
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student_t

from icd_lib.errors import EXIT_GATE_NOT_MET, EXIT_OK, ArtifactError, IcdError
from icd_lib.execute.output import steady_output
from icd_lib.experiment.arms import MODEL
from icd_lib.experiment.comparisons import AA_CONTROL, COMPARISONS, comparisons_of
from icd_lib.experiment.metrics import METRICS
from icd_lib.measure.comparison import compare_arms
from icd_lib.metric import Figure
from icd_lib.paths import user_path
from icd_lib.records.verdict import VERDICT, Verdict
from icd_lib.release.run_checks import CHECKS, RunView, compared, raw_samples
from icd_lib.release.verify import run_check
from icd_lib.report.compared import judged
from icd_lib.report.losses import NEARNESS, READINGS, precise
from icd_lib.report.results import Results, check_current
from icd_lib.report.rows import csv_cell
from icd_lib.report.words import figure_text
from icd_lib.run.artifacts import LOCK
from icd_lib.run.lock import check_lock
from icd_lib.run.manifest import list_files
from icd_lib.storage.atomic import atomic_write
from icd_lib.storage.json_text import parse_json

# What needs only the run itself; a package's other checks are about what was packed.
CHOSEN = ("fields", "layouts", "latency", "comparisons", "gates")
MAX_FILE_BYTES = 2**28
RUN_COLUMNS = ("scenario", "config", "seed", "machine", "smoke", "strict", "badges")
SPLITS = ("unseen", "seen")


def pooled_titles() -> dict[str, str]:
    """The comparisons that runs are put together in: against dense, and what the limits of latency are for."""
    rows = sorted(comparisons_of(MODEL), key=lambda row: row.key != "vs_dense")
    return {row.key: row.pairs[MODEL].title for row in rows if row.limited or row.key == "vs_dense"}


class FolderView(RunView):
    """A run in its own folder, read as one in a package is."""

    def __init__(self, folder: Path | str):
        self.dir = user_path(folder)
        if not (self.dir / LOCK).is_file():
            raise ArtifactError(f"{folder} holds no run (no {LOCK}); give the folder that run_all.py printed")
        check_lock(self.read_json(LOCK), LOCK)

    def read_json(self, rel: str):
        path = self.dir / rel
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ArtifactError(f"{path} is larger than a run's file can be ({MAX_FILE_BYTES} bytes)")
            return parse_json(path.read_bytes(), rel)
        except OSError as error:
            raise ArtifactError(f"cannot read {path}: {error.strerror}; finish the run with --resume") from error

    def has(self, rel: str) -> bool:
        return (self.dir / rel).is_file()

    def files(self) -> list[str]:
        return list_files(self.dir)


def judge_run(run: FolderView) -> tuple[dict, list]:
    """A run's row of the table, and its checks; the row is computed from the samples, not read from the verdict.

    Raises `ArtifactError` for a run of an ICD that judged otherwise.
    """
    lock, verdict = run.read_json(LOCK), run.read(Verdict, VERDICT)
    check_current(verdict, lock, run.dir)
    checks = [run_check(name, CHECKS[name], run) for name in CHOSEN]
    if not all(check.ok for check in checks):
        return {}, checks
    samples, settings = raw_samples(run)
    setup, results = run.read_json("setup/setup.json"), Results.load(run.dir)
    changes = {
        key: next(iter(compare_arms(samples, arm, other, **settings).values()))
        for key, (arm, other) in compared(run).items()
        if key in verdict.sections
    }
    environment = setup.get("environment", {})
    row = {
        "scenario": run.get("scenario"),
        "config": lock["sha256"][:12],
        "seed": run.get("seed"),
        "quick": run.get("quick"),
        "machine": environment.get("cpu", {}).get("model", "not stated"),
        "compared": judged(results),
        "comparisons": changes,
        "quality_drop_pp": verdict.section("vs_dense").lost,
        "quality": verdict.quality if isinstance(verdict.quality, dict) else {},
        "metrics": {
            METRICS[key].title: item
            for key, item in verdict.section(results.gates_comparison).metrics.items()
            if key != "latency_rel"
        },
        "outside_metrics": verdict.outside_metrics,
        "smoke": verdict.smoke.status,
        "strict": verdict.strict.status,
        "badges": "; ".join(results.badges_about("model", "layout", "timing")),
    }
    return row, checks


@dataclass(frozen=True)
class Pooled:
    """The mean change over `n` runs, and the least and the most of them."""

    value: float
    ci95: tuple[float, float]
    n: int
    least: float
    most: float


def pool(values: list[float]) -> Pooled | None:
    """Mean change over runs with a 95 % t interval on log ratios, and their range; None below two runs.

    values: relative changes (-0.4 is 40 % less), one per run; runs are the independent units.
    """
    if len(values) < 2:
        return None
    logs = np.log1p(values)
    half = student_t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    mean = logs.mean()
    bounds = math.expm1(mean - half), math.expm1(mean + half)
    return Pooled(math.expm1(mean), bounds, len(logs), min(values), max(values))


def table_of(rows: dict[str, dict]) -> list[dict]:
    """One flat row per run and, for every scenario with several runs, one that pools them."""
    flat = []
    for name, row in rows.items():
        entry = {"run": name, **{key: row[key] for key in RUN_COLUMNS}}
        for key, words in pooled_titles().items():
            entry |= _columns(words, row["comparisons"].get(key))
        for split in SPLITS:
            for reading, words in READINGS.items():
                item = row["quality"][split].reading(reading) if split in row["quality"] else None
                entry |= _columns(f"{words} lost on {split} text, pp", item)
        flat.append(entry)
    for scenario in dict.fromkeys(row["scenario"] for row in rows.values()):
        same = [row for row in rows.values() if row["scenario"] == scenario and not row["quick"]]
        pooled = {}
        for key, words in pooled_titles().items():
            figures = [row["comparisons"].get(key) for row in same]
            pooled |= _columns(words, pool([item.value for item in figures if item and item.value is not None]))
        if any(value != "" for value in pooled.values()):
            flat.append({"run": f"all {len(same)} runs", "scenario": scenario, **pooled})
    return flat


def _columns(words: str, item: Figure | Pooled | None) -> dict:
    low, high = (item and item.ci95) or ("", "")
    value = None if item is None else item.value
    return {words: "" if value is None else value, f"{words}, low": low, f"{words}, high": high}


def lines_of(row: dict) -> list[str]:
    """A run's figures for people."""
    lines = [f"    {words}: {figure_text(row['comparisons'][key])}{_test(row, key)}" for key, words in _named(row)]
    lines += _quality_lines(row)
    lines += [f"    {words}, {row['compared']}: {figure_text(item)}" for words, item in row["metrics"].items()]
    lines += [f"    {METRICS[key].title}: {figure_text(item)}" for key, item in row["outside_metrics"].items()]
    lines.append(f"    gates, which judge {row['compared']}: smoke {row['smoke']}, strict {row['strict']}")
    return [*lines, f"    badges: {row['badges']}"] if row["badges"] else lines


def _quality_lines(row: dict) -> list[str]:
    """What iterative loses on unseen and seen text, or why that is not known."""
    if not any(split in row["quality"] for split in SPLITS):
        return [f"    quality lost against dense: {figure_text(row['quality_drop_pp'])}"]
    lines = []
    for split in (split for split in SPLITS if split in row["quality"]):
        quality = row["quality"][split]
        figures = {words: quality.reading(reading) for reading, words in READINGS.items()}
        figures |= {words: precise(quality.nearness(key)) for key, words in NEARNESS.items()}
        told = [f"{words} {figure_text(item)}" for words, item in figures.items() if item and not item.is_missing]
        lines.append(f"    lost on {split} text, most on {quality.worst_domain}: {'; '.join(told)}")
    return lines


def _named(row: dict) -> list[tuple[str, str]]:
    names = pooled_titles()
    rest = [item for item in comparisons_of(MODEL) if item.key not in names]
    names |= {item.key: f"{item.arm} vs {item.pairs[MODEL].words}" for item in rest}
    names[AA_CONTROL] = COMPARISONS[AA_CONTROL].pairs[MODEL].title
    return [(key, words) for key, words in names.items() if key in row["comparisons"]]


def _test(row: dict, key: str) -> str:
    test = row["comparisons"][key].test
    return f", p {test.p:.2g}, r {test.effect:+.2f}" if test else ""


@steady_output()
def main(argv: list[str] | None = None) -> int:
    """Check and judge the runs, print what was found; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m icd_lib.validate", description="Judge finished runs again.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, such as outputs/bert")
    parser.add_argument("--csv", metavar="FILE", help="write the table of all runs there")
    parser.add_argument("--json", action="store_true", help="print the table as JSON instead of text")
    args = parser.parse_args(argv)
    rows, damaged = {}, False
    try:
        for folder in args.runs:
            row, checks = judge_run(FolderView(folder))
            if not args.json:
                print(f"{folder}: {row.get('scenario', 'not what its samples say')}")
                print("\n".join(f"  {check}" for check in checks))
                print("\n".join(lines_of(row)) if row else "    not judged")
            damaged |= not row
            if row:
                rows[folder] = row
        table = table_of(rows)
        if args.csv:
            atomic_write(user_path(args.csv), as_csv(table))
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(table, indent=2, ensure_ascii=False))
    elif len(rows) > 1:
        print(as_csv(table), end="")
    if damaged:
        return ArtifactError.exit_code
    missed = any(row["smoke"] == "fail" and not row["quick"] for row in rows.values())
    return EXIT_GATE_NOT_MET if missed else EXIT_OK


def as_csv(table: list[dict]) -> str:
    """The table with one header for all rows."""
    columns = list(dict.fromkeys(key for row in table for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in table)
    return out.getvalue()
