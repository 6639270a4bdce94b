"""benchmarks/order_tables.py: a line per model, grid and order; what a file does not have is a dash."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import order_tables


def point(arm, kl, against=None):
    return {
        "grid": "int4, 64",
        "arm": arm,
        "bits_per_weight": 4.32,
        "kl": {"value": kl, "ci95": [kl - 0.01, kl + 0.01]},
        "perplexity_ratio": {"value": 1.1, "ci95": [1.0, 1.2]},
        "accuracy_drop_pp": {"drop_pp": 0.5, "se_pp": 0.1},
    } | ({"kl_against": {"stored": {"value": against, "ci95": [against - 0.02, against + 0.02]}}} if against else {})


def test_a_line_per_order_with_its_change_against_the_stored_one():
    result = {"checkpoint": {"name": "toy"}, "points": [point("folded", 0.1, -0.5), point("stored", 0.2)]}
    _, _, stored, folded = order_tables.order_table([result]).splitlines()
    assert stored.startswith("| toy | int4, 64 | GPTQ, stored order | 4.32 | 0.20000 (0.19000 … 0.21000)")
    assert stored.endswith("| – |") and "+0.50 ± 0.20" in stored
    assert folded.endswith("| -50.0 % (-52.0 … -48.0) |")


def test_every_arm_of_the_benchmark_has_words():
    import order

    assert set(order.ARMS) == set(order_tables.WORDS)


def test_the_page_has_the_place_for_it():
    assert "<!-- order: start -->" in order_tables.PAGE.read_text(encoding="utf-8")
