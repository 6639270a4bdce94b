"""benchmarks/outliers.py on a tiny encoder: which columns its arms keep float and where, and its table."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_problems import small_batches, small_model

from icd_lib.axes.double import Unrounded
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.models.quantized import quantized_linears
from icd_lib.storage.atomic import to_json
from icd_lib.storage.json_text import read_text

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import outliers


@pytest.fixture(scope="module")
def arms():
    return outliers.arms_of(small_model(dtype=torch.float32, intermediate_size=640), small_batches(), [1])


def places(model) -> list[np.ndarray]:
    """Where the columns that stay float lie, per Linear that has any."""
    held = [one.unrounded for one in quantized_linears(model).values() if one.unrounded is not None]
    return [np.flatnonzero(columns.numpy() > 0) for columns in held]


def test_gathered_columns_are_the_scattered_ones_in_one_stretch(arms):
    assert list(arms)[2:] == ["16 columns gathered", "16 columns scattered", "16 columns, linear's whole tiles"]
    gathered, scattered, whole = list(arms.values())[2:]
    assert [list(found) for found in places(gathered)] == [list(range(16))] * 2
    assert all(len(found) == 16 and list(found) != list(range(16)) for found in places(scattered))
    assert outliers.float_columns(whole) > outliers.float_columns(gathered) == 16
    assert all(len(found) % outliers.TILE == 0 for found in places(whole))
    with Unrounded():
        batch = small_batches()[0]
        assert outputs_error(model_outputs(scattered, batch), model_outputs(gathered, batch)) < 1e-5


def test_without_tiles_nothing_stays_float(arms):
    assert arms[outliers.INT8] is arms[outliers.AGAIN] and outliers.float_columns(arms[outliers.INT8]) == 0


def test_the_table_has_a_line_for_each_arm(arms):
    ms = np.array([2.0, 2.1, 2.2])
    entries = {name: outliers.entry(ms * 1.5, ms, model) for name, model in arms.items()}
    entries[outliers.INT8] = outliers.entry(ms, ms, arms[outliers.INT8])
    entries[outliers.FLOAT] = outliers.entry(ms * 3, ms, None)
    lines = outliers.table({"shapes": {"8x128": {"arms": entries}}}).splitlines()
    assert len(lines) == 2 + len(entries) and lines[0].startswith("| arm | float columns a layer | 8 × 128, ms |")
    assert lines[2] == "| all int8 | 0 | 2.10 | – |"
    assert lines[4].startswith("| 16 columns gathered | 16 | 3.15 | +50.0 % (") and lines[-1].startswith(
        "| nothing int8 | all | 6.30 |"
    )


def test_the_kept_figures_are_those_of_the_page():
    root = Path(__file__).resolve().parents[2] / "docs"
    file, page = root / "figures" / outliers.FILE, (root / "QUANTIZATION.md").read_text(encoding="utf-8")
    if not file.is_file():
        assert "Not run yet." in page
        return
    kept = read_text(file)
    assert to_json(kept) and all(len(at["arms"]) == 12 for at in kept["shapes"].values())
    for name, item in next(iter(kept["shapes"].values()))["arms"].items():
        assert f"| {name} |" in page and f"| {item['latency_ms']['value']:.2f} |" in page
