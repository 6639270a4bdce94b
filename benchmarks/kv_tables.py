"""The tables of docs/KV.md, from docs/figures/kv.json.

python benchmarks/kv_tables.py
"""

import json
import sys
from pathlib import Path

from icd_lib.report.marked import with_marked
from icd_lib.storage.atomic import atomic_write

ROOT = Path(__file__).resolve().parent.parent
FIGURES, PAGE = ROOT / "docs" / "figures" / "kv.json", ROOT / "docs" / "KV.md"
SPLITS, LAYOUTS = ("unseen", "seen"), ("linear", "iterative")
NOT_RUN = "Not run yet."


def quality_table(section: dict) -> str:
    """One line per cache: what it loses on each split, its pages in both layouts, bytes that a token reads."""
    splits = [split for split in SPLITS if split in section["splits"]]
    heads = [f"{words}, {split}" for split in splits for words in ("KL", "accuracy lost, pp", "perplexity")]
    titles = [
        "kept",
        "arm",
        "cache",
        *heads,
        "pages, linear",
        "pages, iterative",
        "MB read, linear",
        "MB read, iterative",
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, arm in sorted(section["arms"].items(), key=lambda item: -item[1]["keep"]):
        cells = [f"{arm['keep']:.0%}", arm["arm"], arm["store"]]
        for split in splits:
            entry = section["splits"][split][name]
            kl, ratio = entry["kl"], entry["perplexity_ratio"]
            cells += [_with_ends(kl, 4), f"{entry['own']['drop_pp']:+.2f} ± {entry['own']['se_pp']:.2f}"]
            cells.append("× " + _with_ends(ratio, 3))
        for key, scale, digits in (("pages_read", 1, 0), ("bytes_read", 1e6, 1)):
            cells += [_amount(arm.get(layout), key, scale, digits) for layout in LAYOUTS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def lookup_table(section: dict) -> str:
    """One line per cache: exact match on every task; the first line is the full cache."""
    tasks = section["tasks"]
    lines = [f"| kept | arm | cache | {' | '.join(tasks)} |", "|---" * (len(tasks) + 3) + "|"]
    first = next(iter(section["arms"]))
    whole = [f"{entries[first]['full_exact_pct']:.0f} %" for entries in tasks.values()]
    lines.append(f"| 100% | all | float | {' | '.join(whole)} |")
    for name, arm in sorted(section["arms"].items(), key=lambda item: -item[1]["keep"]):
        cells = [
            f"{e[name]['exact_pct']:.0f} % ({-e[name]['drop_pp']:+.0f} ± {e[name]['se_pp']:.0f})"
            for e in tasks.values()
        ]
        lines.append(f"| {arm['keep']:.0%} | {arm['arm']} | {arm['store']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def latency_table(section: dict) -> str:
    """One line per cache, batch and context: time per token, against the full cache, stock and linear."""
    titles = ["batch", "context", "cache", "ms per token", "against full", "against stock", "against linear", "MB read"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for point in section["points"]:
        for name, entry in point["arms"].items():
            cells = [str(point["batch"]), f"{point['context']:,}", name, f"{entry['latency_ms']['median']:.1f}"]
            for other in ("vs_full", "vs_stock", "vs_linear"):
                cells.append(_change(entry[other]) if other in entry else "–")
            cells.append(_amount(entry, "bytes_read", 1e6, 1))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES = {"quality": quality_table, "lookup": lookup_table, "latency": latency_table}


def page_with(page: str, figures: dict) -> str:
    """The page with every table made anew from the figures; a part that was not run says so."""
    for part, table in TABLES.items():
        page = with_marked(page, part, table(figures[part]) if part in figures else NOT_RUN)
    return page


def _with_ends(figure: dict, digits: int) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _change(ratio: dict) -> str:
    low, high = (100 * end for end in ratio["ci95"])
    return f"{100 * ratio['value']:+.1f} % [{low:+.1f}, {high:+.1f}]"


def _amount(entry: dict | None, key: str, scale: float, digits: int) -> str:
    return "–" if entry is None or key not in entry else f"{entry[key] / scale:,.{digits}f}"


def main() -> int:
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    atomic_write(PAGE, page_with(PAGE.read_text(encoding="utf-8"), figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
