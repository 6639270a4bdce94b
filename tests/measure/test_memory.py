"""Sizes by closed form."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from icd_lib.errors import MeasureError
from icd_lib.measure.memory import alive_tiles, linear_flops, parameter_bytes, peak_memory_mb
from icd_lib.measure.peak import PeakProcess, peaks_of_folders
from icd_lib.models.checkpoint.optimized import save_optimized

pytestmark = pytest.mark.wide


def test_parameter_bytes_counts_shared_weights_once_and_follows_the_dtype():
    first, second = nn.Linear(8, 4, bias=False), nn.Linear(8, 4, bias=False)
    second.weight = first.weight
    assert parameter_bytes(nn.Sequential(first, second)) == 8 * 4 * 4
    assert parameter_bytes(nn.Linear(8, 4).to(torch.bfloat16)) == (32 + 4) * 2


def test_flops_of_a_bert_by_hand():
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    batch, length = 3, 7
    per_token = 2 * (4 * 32 * 32 + 2 * 32 * 64)
    attention = 4 * batch * length**2 * 32
    pooler = 2 * batch * 32 * 32
    model = BertModel(config).eval()
    assert linear_flops(model, batch, length) == 2 * (batch * length * per_token + attention) + pooler
    assert not any(module._forward_hooks for module in model.modules())


def test_peak_memory_sees_what_the_call_held():
    grown = peak_memory_mb(lambda: np.ones(40_000_000)).value
    assert grown >= 320
    assert peak_memory_mb(lambda: None).value < grown - 200


def test_each_model_has_a_peak_of_its_own_and_a_broken_one_spoils_no_other(tmp_path):
    config = {"vocab_size": 1100, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    sizes = {"small": 64, "large": 400_000}  # 200 MB of weights more
    for name, width in sizes.items():
        save_optimized(BertModel(BertConfig(**config, intermediate_size=width)), None, tmp_path / name)
    folders = [tmp_path / name for name in ("large", "nowhere", "small")]
    large, broken, small = peaks_of_folders(folders, "transformers.models.bert.modeling_bert", 1, 8)
    assert broken.is_missing and "exit code" in broken.reason
    assert large.kind == small.kind == "measured"
    assert small.value + 200 < large.value


def test_a_process_that_was_started_before_gives_the_peaks_and_one_that_cannot_import_says_so(tmp_path):
    config = BertConfig(vocab_size=1100, hidden_size=64, num_hidden_layers=1, num_attention_heads=4)
    save_optimized(BertModel(config), None, tmp_path / "model")
    peaks = []
    for module in ("transformers.models.bert.modeling_bert", "no_such_module"):
        started = PeakProcess(module, 1, 8)
        started.wait()
        peaks += peaks_of_folders([tmp_path / "model"], module, 1, 8, started)
    assert peaks[0].kind == "measured" and peaks[0].value > 50
    assert peaks[1].is_missing and "No module named 'no_such_module'" in peaks[1].reason


def test_alive_tiles_of_widths_and_of_a_layout():
    scattered = np.zeros(16, dtype=bool)
    scattered[[0, 5, 15]] = True
    assert alive_tiles({"a": scattered, "b": 3, "c": 0}, 4) == {"total": 4, "per_axis": {"a": 3, "b": 1, "c": 0}}
    assert alive_tiles({"a": np.sort(scattered)[::-1]}, 4)["total"] == 1


@pytest.mark.parametrize(("kept", "tile"), [({"a": 4}, 0), ({"a": np.array([1, 0])}, 4)])
def test_alive_tiles_refuses_no_tile_and_integer_masks(kept, tile):
    with pytest.raises(MeasureError):
        alive_tiles(kept, tile)
