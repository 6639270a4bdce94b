"""benchmarks/settle.py: shares are one plus the paired change, and a line stands for a shape and a time of settling."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import settle


def test_shares_are_of_the_medians_and_the_table_has_a_line_for_each():
    samples = {settle.EAGER_ARM: np.full(9, 10.0), settle.DENSE: np.full(9, 4.0), settle.ITERATIVE: np.full(9, 3.0)}
    entry = settle.summary(samples)
    assert entry["median_ms"][settle.ITERATIVE] == 3.0
    assert entry["of_eager"]["value"] == pytest.approx(-0.7) and entry["of_dense"]["value"] == pytest.approx(-0.25)
    lines = settle.table({"shapes": {"1x32": {"0": entry, "20": entry}}}).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| 1x32 | 0 | 10.00 | 4.00 | 3.00 | 0.300 (0.300 to 0.300) | 0.750 (0.750 to 0.750) |")
