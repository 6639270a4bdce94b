"""The tables of docs/PASS_DOC.md, from docs/figures/bridge.json.

python benchmarks/bridge_tables.py
"""

import itertools
import json
import re
from pathlib import Path

import numpy as np

from icd_lib.report.marked import with_marked
from icd_lib.storage.atomic import atomic_write

ROOT = Path(__file__).resolve().parent.parent
FIGURES, PAGE = ROOT / "docs" / "figures" / "bridge.json", ROOT / "docs" / "PASS_DOC.md"
MODELS = {"bert": ["8x128", "1x32"], "mamba": ["1x64"]}  # embedded model → its shapes
NOT_RUN = "Not measured yet."
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?!\w)")


def equivalence_table(section: dict) -> str:
    """One line per compiler and family: relative errors over all its cases."""
    lines = [
        "| compiler | family | cases | to float64: median | largest | to eager: largest | eager to float64: largest | "
        "one token: largest |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple, list] = {}
    for case in section["cases"]:
        groups.setdefault((case["engine"], case["family"]), []).append(case)
    for (engine, family), cases in groups.items():
        good = [case for case in cases if "reason" not in case]
        if good:
            exact = [case["to_float64"] for case in good]
            largest = [max(case[key] for case in good) for key in ("to_eager", "eager_to_float64")]
            token = max(case["per_token_to_float64"]["max"] for case in good)
            cells = [f"{value:.1e}" for value in (np.median(exact), max(exact), *largest, token)]
            lines.append(f"| `{engine}` | {family} | {len(good)} | {' | '.join(cells)} |")
        for reason, count in alike(sorted(case["reason"] for case in cases if "reason" in case)):
            lines.append(f"| `{engine}` | {family} | {count} | not measured: {reason} | | | | |")
    return "\n".join(lines)


def alike(reasons: list[str]) -> list[tuple[str, int]]:
    """(reason, how many): those that differ only in their numbers are one, with the least and the largest of each."""
    groups: dict[tuple[str, ...], list[list[str]]] = {}
    for reason in reasons:
        groups.setdefault(tuple(NUMBER.split(reason)), []).append(NUMBER.findall(reason))
    return [(_joined(words, numbers), len(numbers)) for words, numbers in groups.items()]


def _joined(words: tuple[str, ...], numbers: list[list[str]]) -> str:
    spans = [sorted(set(column), key=float) for column in zip(*numbers, strict=True)]
    told = [span[0] if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans]
    return "".join(itertools.chain(*itertools.zip_longest(words, told, fillvalue="")))


def latency_table(section: dict) -> str:
    """One line per shape, place and arm."""
    lines = [
        "| shape | where | arm | tiles | median | against dense there | tiles against none | against eager | compile | "
        "peak memory | error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for shape, entry in section["shapes"].items():
        for label in entry["median_ms"] or entry["compiled"]:
            engine, arm, *how = label.split("/")
            median = entry["median_ms"].get(label)
            ratios, made = entry["ratios"].get(label, {}), entry["compiled"].get(label)
            error = entry["errors"].get(label)
            cells = [
                shape,
                f"`{engine}`",
                arm,
                how[0] if how else "–",
                f"{median:.2f} ms" if median else "not measured",
                *(_change(ratios.get(name)) for name in ("vs_dense", "vs_plain", "vs_eager")),
                f"{made['seconds']['lower']:.0f} s" if made else "–",
                f"{made['peak_memory_mb']:.0f} MB" if made else "–",
                f"{error['to_float64']:.1e}" if error else "–",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    for shape, entry in section["shapes"].items():
        lines += [f"\n`{label}` was not measured at {shape}: {why}" for label, why in entry["refused"].items()]
        ran = f"{entry['threads']} threads, {entry['rounds']} interleaved rounds"
        lines.append(f"\n{section['model']} at {shape}: {ran}.")
    return "\n".join(lines)


def errors_table(found: dict) -> str:
    """One line per compiler, embedded model, shape and arm: its errors, with tiles and without the larger one."""
    lines = [
        "| compiler | model | shape | arm | to float64 | to eager | eager to float64 | one token: median | p95 | "
        "largest |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in MODELS if name in found):
        for shape, entry in found[name]["shapes"].items():
            groups: dict[tuple[str, str], list[dict]] = {}
            for label, error in entry["errors"].items():
                engine, arm, _ = label.split("/")
                groups.setdefault((engine, arm), []).append(error)
            for (engine, arm), errors in groups.items():
                worst = max(errors, key=lambda error: error["to_float64"])
                token = worst["per_token_to_float64"]
                values = [worst[key] for key in ("to_float64", "to_eager", "eager_to_float64")]
                values += [token[key] for key in ("median", "p95", "max")]
                cells = [f"`{engine}`", name, shape, arm, *(f"{value:.2e}" for value in values)]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else NOT_RUN


def _change(ratio: dict | None) -> str:
    if ratio is None:
        return "–"
    low, high = (f"{100 * bound:+.1f}" for bound in ratio["ci95"])
    return f"{100 * ratio['value']:+.1f} % ({low} … {high})".replace("-", "−")


def main() -> None:
    found = json.loads(FIGURES.read_text()) if FIGURES.is_file() else {}
    page = PAGE.read_text(encoding="utf-8")
    for name, table in {"equivalence": equivalence_table, **dict.fromkeys(MODELS, latency_table)}.items():
        page = with_marked(page, f"bridge-{name}", table(found[name]) if name in found else NOT_RUN)
    page = with_marked(page, "bridge-errors", errors_table(found))
    atomic_write(PAGE, page)


if __name__ == "__main__":
    main()
