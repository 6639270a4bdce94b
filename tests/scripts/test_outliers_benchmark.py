"""benchmarks/outliers.py on a tiny encoder: which columns its arms keep float and where, and its table."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_problems import small_batches, small_model

from icd_lib.axes.double import Unrounded
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.models.quantized import quantized_linears
from icd_lib.runtimes.target import Target
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


@pytest.mark.wide
@pytest.mark.slow
def test_every_arm_is_timed_in_openvino_at_every_shape():
    pytest.importorskip("openvino")
    batch, model = small_batches()[0], small_model(dtype=torch.float32, intermediate_size=640)
    context = SimpleNamespace(
        model=model,
        example=batch,
        calibration=lambda count, tokens: small_batches(),
        deployed=Target.named,
        get=lambda path: [(2, 8), (1, 4)],
        fixed=lambda rows, length: {name: value[:rows, :length] for name, value in batch.items()},
        run=SimpleNamespace(scenario=SimpleNamespace(get=lambda path: 1)),
    )
    found = outliers.measure(context, [1], rounds=3, warmup=1)
    assert list(found["shapes"]) == ["2x8", "1x4"]
    for at in found["shapes"].values():
        columns = {name: item["float_columns"] for name, item in at["arms"].items()}
        assert len(columns) == 6 and columns["16 columns gathered"] == 16 and columns[outliers.FLOAT] is None
        assert any("few samples" in warning for warning in at["warnings"])
        assert at["arms"][outliers.INT8]["vs_int8"].value == 0
    assert json.loads(to_json(found))["tile"] == outliers.TILE and "| nothing int8 | all |" in outliers.table(found)


def test_the_kept_figures_are_those_of_the_page():
    root = Path(__file__).resolve().parents[2] / "docs"
    file, page = root / "figures" / outliers.FILE, (root / "QUANTIZATION.md").read_text(encoding="utf-8")
    if not file.is_file():
        assert "Not run yet." in page
        return
    kept = read_text(file)
    assert all(len(at["arms"]) == 12 for at in kept["shapes"].values())
    for name, item in next(iter(kept["shapes"].values()))["arms"].items():
        assert f"| {name} |" in page and f"| {item['latency_ms']['value']:.2f} |" in page
