"""The tables of orders and of mixed bits in docs/QUANTIZATION.md, from docs/figures/order*.json.

python benchmarks/order_tables.py
"""

import json
import sys
from pathlib import Path

from order import bits_table

from icd_lib.measure.statistics import Z95
from icd_lib.report.marked import with_marked
from icd_lib.storage.atomic import atomic_write

ROOT = Path(__file__).resolve().parent.parent
FIGURES, PAGE = ROOT / "docs" / "figures", ROOT / "docs" / "QUANTIZATION.md"
FILES = ("order.json", "order_int3.json", "order_int4.json", "order_llama.json")
BITS = "order_bits.json"
WORDS = {
    "nearest": "to nearest points",
    "stored": "GPTQ, stored order",
    "random": "GPTQ, random order",
    "free": "GPTQ, every matrix in an order of its own, not folded",
    "folded": "GPTQ, folded order",
    "folded, followed": "the same, fitted to the dense stream",
}


def order_table(results: list[dict]) -> str:
    """One line per model, grid and order; the last column is against GPTQ in stored order."""
    titles = ["model", "grid", "order", "bits per weight", "KL to dense", "perplexity ×", "accuracy lost, pp"]
    lines = [f"| {' | '.join([*titles, 'KL against stored order'])} |", "|---" * (len(titles) + 1) + "|"]
    for result in results:
        name = result["checkpoint"]["name"]
        for item in sorted(result["points"], key=lambda item: (item["grid"], list(WORDS).index(item["arm"]))):
            drop, against = item["accuracy_drop_pp"], item.get("kl_against", {}).get("stored")
            cells = [name, item["grid"], WORDS[item["arm"]], f"{item['bits_per_weight']:.2f}"]
            cells += [_with_ends(item["kl"], 5), _with_ends(item["perplexity_ratio"], 4)]
            cells.append(f"{drop['drop_pp']:+.2f} ± {Z95 * drop['se_pp']:.2f}")
            cells.append(_percent(against) if against else "–")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_ends(figure: dict, digits: int) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.{digits}f} ({low:.{digits}f} … {high:.{digits}f})"


def _percent(figure: dict) -> str:
    low, high = figure["ci95"]
    return f"{100 * figure['value']:+.1f} % ({100 * low:+.1f} … {100 * high:+.1f})"


def main() -> int:
    results = [json.loads((FIGURES / name).read_text(encoding="utf-8")) for name in FILES]
    page = with_marked(PAGE.read_text(encoding="utf-8"), "order", order_table(results))
    mixed = json.loads((FIGURES / BITS).read_text(encoding="utf-8"))["bits"]
    atomic_write(PAGE, with_marked(page, "bits", bits_table(mixed)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
