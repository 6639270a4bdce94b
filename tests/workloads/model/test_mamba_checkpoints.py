"""The scenario `mamba` on other models than the embedded one: random weights of a shape, and a folder of one's own."""

import pytest
import transformers

from icd_lib.models.checkpoint.loading import load_tokenizer
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.shapes import SHAPES, Shape
from icd_lib.run.artifacts import open_run
from icd_lib.stages import run_stage
from icd_lib.workloads.model.context import RANDOM_WEIGHTS
from tests.tiny_mambas import CONFIG_130M, NARROW, SHALLOW

pytestmark = [pytest.mark.wide, pytest.mark.slow]

SMALL = (
    "threads=1",
    "data.seen=[news, films]",
    "data.selection=[manual]",
    "data.unseen=[products]",
    "data.max_length=32",
    "data.calibration_texts=8",
    "data.distill_texts=8",
    "data.validation_items=8",
    "data.test_items=8",
    "graph.nnz_cap=5000",
    "solver.refine_steps=20",
    "measure.shapes=[[1, 32], [2, 8]]",
    "measure.bootstrap=100",
    "measure.repeats=3",
    "measure.max_repeats=3",
    "measure.warmup=1",
    "decode.clock=[[1, 16], [3, 16]]",
    "decode.peers=[]",
    "decode.rounds=1",
    "decode.steps=3",
    "decode.greedy=4",
)
# What docs/MAMBA.md says for a shape whose weights nobody trained.
RANDOM = ("model.weights=random", "transform.distill_steps=0", "codesign.latency_target_rel=-0.3")


def stages(tmp_path, *overrides):
    """The run, from set-up to verdict."""
    run = open_run("mamba", [*SMALL, *overrides], out=tmp_path)
    for name in ("setup", "graph"):
        run_stage(name, run, lambda line: None)
    for mode in ("linear", "oneshot", "iterative"):
        run_stage("solve", run, mode, lambda line: None)
    for name in ("measure", "validate"):
        run_stage(name, run, lambda line: None)
    return run


def test_random_weights_of_a_shape_are_timed_and_weighed_under_a_badge(monkeypatch, tmp_path):
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 4096}
    monkeypatch.setitem(SHAPES._rows, "tiny", Shape("mamba", SHAPES["mamba-130m"].config | sizes))
    run = stages(tmp_path, *RANDOM, "model.shape=tiny")
    assert run.read_json("setup/setup.json")["badges"] == [RANDOM_WEIGHTS]
    assert run.read_json("measure/measure.json")["quality"] == {"reason": RANDOM_WEIGHTS}
    for arm in ("dense", "linear", "oneshot", "iterative"):
        metrics = run.read_json(f"{arm}/metrics.json")
        assert metrics["quality_pct"]["kind"] == "not_measured"
        assert {metrics[key]["kind"] for key in ("latency_ms", "peak_memory_mb")} == {"measured"}
    decoding = run.read_json("measure/decoding.json")
    assert all({"dense", "stock", "iterative"} <= set(shape["arms"]) for shape in decoding["clock"])
    assert not decoding["deployed"] and all(item["equal"] == item["texts"] for item in decoding["same_tokens"])


def test_a_folder_that_save_pretrained_wrote_goes_from_set_up_to_verdict(tmp_path):
    """With the config of `state-spaces/mamba-130m-hf`, narrower and with two layers."""
    folder = tmp_path / "mine"
    transformers.set_seed(0)
    config = transformers.MambaConfig(**CONFIG_130M | NARROW | SHALLOW)
    transformers.MambaForCausalLM(config).save_pretrained(folder)
    load_tokenizer(resolve_checkpoint(None, family="mamba")).save_pretrained(folder)
    loose = ("codesign.quality_budget_pp=50", "codesign.max_perplexity_ratio=50", "codesign.strengths=[-0.05]")
    run = stages(tmp_path, f"model.checkpoint={folder}", "transform.distill_steps=2", *loose)
    setup, quality = run.read_json("setup/setup.json"), run.read_json("measure/measure.json")["quality"]
    assert setup["model"]["source"] == "path" and setup["badges"] == []
    assert quality["iterative"]["unseen"]["n_items"] > 0
    verdict = run.read_json("verdict.json")
    assert verdict["determinism"]["pi_hash_equal"] and set(verdict["vs_dense"]["shapes"]) == {"1x32", "2x8"}
    assert len(run.read_json("measure/decoding.json")["clock"]) == 2
