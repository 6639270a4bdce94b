"""benchmarks/zeros.py: which weights it makes zero, and docs/USAGE.md says what its file has."""

import sys
from pathlib import Path

import pytest
import torch

from icd_lib.storage.json_text import read_text
from tests.tiny_problems import small_model

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import zeros


def test_the_smallest_weights_of_the_ffns_are_zero_and_no_others():
    before = small_model(dtype=torch.float32).state_dict()
    after = zeros.scatter_zeros(small_model(dtype=torch.float32), 0.8).state_dict()
    assert after.keys() == before.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and all("attention" not in name and name.endswith("dense.weight") for name in changed)
    for name in changed:
        gone = after[name] == 0
        assert float(gone.float().mean()) == pytest.approx(0.8, abs=0.01)
        assert before[name][gone].abs().max() <= before[name][~gone].abs().min()


def test_the_page_says_what_the_file_has():
    root = Path(__file__).resolve().parents[2] / "docs"
    kept, page = read_text(root / "figures" / zeros.FILE), (root / "USAGE.md").read_text(encoding="utf-8")
    assert kept["share"] == zeros.SHARE and kept["tile"] == zeros.TILE and len(kept["axes"]) == 6
    assert zeros.summary(kept["axes"]) in page
