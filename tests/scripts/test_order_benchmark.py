"""benchmarks/order.py: what it says of a checkpoint's past, which mixture it takes, and how it counts bits."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.errors import ConfigError
from icd_lib.measure.quality_lm import LanguageResult, SplitResult
from icd_lib.measure.statistics import Z95
from icd_lib.models.checkpoint.source import Checkpoint
from icd_lib.models.families.llama import NAME
from tests.tiny_decoders import VOCAB, tiny_decoder

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import order


def checkpoint(name, source):
    return Checkpoint(Path("folder"), name, None, "0", "mit", source, family="llama")


def test_the_past_of_a_checkpoint_is_its_own(monkeypatch):
    monkeypatch.setattr(order, "fetched_file", lambda package: "file.gguf")
    monkeypatch.setattr(order, "read_header", lambda file: {"types": ["Q4_1"]})
    assert "Q4_1" in order.past_of(checkpoint(NAME, "embedded"))
    assert order.past_of(checkpoint("llama-worlds", "embedded")).startswith("none: trained by this project")
    for name in (NAME, "llama-worlds"):
        assert order.past_of(checkpoint(name, "path")).startswith("not known")


def split_of(**kl) -> SplitResult:
    """Domains of two blocks whose tokens have these divergences, every block a document."""
    clusters = np.array([[0, 0], [1, 1]])
    nothing = np.zeros((2, 2), np.float32)
    domains = {
        name: LanguageResult(nothing, nothing > 0, clusters, np.array(values, np.float32), clusters)
        for name, values in kl.items()
    }
    return SplitResult("unseen", domains)


def test_the_cut_of_kl_is_relative_to_the_worse_ones_mean_and_domains_weigh_the_same():
    worse = split_of(a=[[0.4, 0.4], [0.4, 0.4]], b=[[0.2, 0.2], [0.2, 0.2]])
    better = split_of(a=[[0.2, 0.2], [0.2, 0.2]], b=[[0.2, 0.2], [0.2, 0.2]])
    assert order.kl_cut(better, worse)["value"] == pytest.approx(-1 / 3)
    assert order.kl_cut(better, worse)["ci95"] == pytest.approx([-1 / 3, -1 / 3])  # every token loses the same
    assert order.kl_cut(worse, worse)["value"] == 0
    uneven = split_of(a=[[0.1, 0.1], [0.3, 0.3]], b=[[0.2, 0.2], [0.2, 0.2]])
    # a: documents at -0.3 and -0.1, so a standard error of 0.1 in one of two domains, over a base of 0.3
    half = Z95 * 0.1 / 2 / 0.3
    assert order.kl_cut(uneven, worse)["ci95"] == pytest.approx([-1 / 3 - half, -1 / 3 + half], rel=1e-5)


def point(arm, bits, drop=0.0, ratio=1.0, se=0.0) -> dict:
    judged = {"perplexity_ratio": {"value": ratio, "ci95": [ratio - Z95 * se, ratio + Z95 * se]}}
    return {"arm": arm, "bits_per_weight": bits, "selection": judged | {"accuracy_drop_pp": {"drop_pp": drop}}}


def test_the_fewest_bits_that_keep_the_budget_are_taken():
    points = [
        point("folded", 8.4),
        point("folded", 5.5, ratio=1.009, se=0.0005),
        point("folded", 5.0, ratio=1.009, se=0.002),  # one standard error takes it above 1.01
        point("folded", 4.5, drop=0.2),
        point("nncf", 4.3),
    ]
    assert order.fewest(points, "folded")["bits_per_weight"] == 5.5
    assert order.fewest(points, "nncf")["bits_per_weight"] == 4.3
    assert order.fewest(points[2:4], "folded") is None and order.fewest(points, "stored") is None
    assert order.keeps_budget(point("a", 4, drop=order.BUDGET_PP, ratio=order.MOST_PERPLEXITY)["selection"])


def test_nncfs_bits_are_codes_scales_and_zeros_of_the_blocks_matrices():
    model, block = nn.Module(), nn.Module()
    block.down_proj, model.lm_head = nn.Linear(64, 4, bias=False), nn.Linear(64, 4, bias=False)
    block.down_proj.weight = nn.Parameter(torch.zeros(4, 32, dtype=torch.uint8), requires_grad=False)  # two codes each
    block.down_proj.register_buffer("_scale", torch.zeros(4, 1, dtype=torch.float16))
    block.down_proj.register_buffer("_zero_point", torch.zeros(4, 1, dtype=torch.uint8))
    block.norm = nn.LayerNorm(64)
    model.layers = nn.ModuleList([block])
    assert order.nncf_bits(model) == pytest.approx(8 * (128 + 8 + 4) / (64 * 4))


def test_nncf_names_its_codes_and_scales_as_they_are_counted():
    pytest.importorskip("nncf")
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = tiny_decoder(dtype=torch.float32, head_dim=16, **sizes)
    batches = [{"input_ids": torch.randint(3, VOCAB, (4, 16), generator=torch.Generator().manual_seed(0))}]
    few, some = (order.by_nncf(model, batches, share)[1] for share in (1.0, 0.5))
    assert 4 + (16 + 4) / 64 <= few <= 4 + (16 + 8) / 64 < some < 8 + (16 + 8) / 64


def test_a_grid_without_whole_groups_is_known_by_its_columns():
    model = tiny_decoder(hidden_size=24, intermediate_size=48)  # 36 value dims: what the output projection reads
    assert order.undivided(model, 12) == [] and order.undivided(model, 8) == [36]
    assert order.undivided(model, 36) == [24, 48]
    assert set(order.PLAN) == set(order.SPECS)


def test_an_interrupted_call_of_another_checkpoint_is_not_gone_on_with():
    made = {"checkpoint": {"name": "one"}, "calibration": {"tokens": 8}}
    order.check_same({}, made, Path("order.json"))
    order.check_same({**made, "bits": [1]}, made, Path("order.json"))
    with pytest.raises(ConfigError, match="order.json is of another calibration"):
        order.check_same({**made, "calibration": {"tokens": 9}}, made, Path("order.json"))
