"""The whole masked scenario for real, quick, on a tiny checkpoint whose masks nobody made permanent."""

import json

import pytest
import torch
from torch.nn.utils import prune
from transformers import BertConfig, BertModel

import icd_lib as icd
import run_all
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint

pytestmark = [pytest.mark.notebooks, pytest.mark.slow]

FFN, HEADS, DEAD = 256, 4, 96
SMALLER = ["data.test_items=40", "data.validation_items=30", "data.calibration_texts=40", "measure.repeats=6"]
SMALLER += ["data.seen=[docstrings]", "data.selection=[verses]", "data.unseen=[glosses]"]


def tiny_checkpoint(folder, pruned=True):
    """A random BERT with the embedded tokenizer: 96 of 256 neurons masked, a head that is not read, scattered zeros."""
    _, tokenizer = load_model(resolve_checkpoint(None))
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": FFN}
    model = BertModel(BertConfig(vocab_size=tokenizer.vocab_size, **sizes)).eval()
    for layer in model.encoder.layer if pruned else []:
        torch.nn.init.normal_(layer.intermediate.dense.bias)  # so that a masked neuron still says something
        prune.ln_structured(layer.intermediate.dense, "weight", DEAD, n=2, dim=0)
        prune.l1_unstructured(layer.output.dense, "weight", 0.3)
        with torch.no_grad():
            layer.attention.output.dense.weight[:, :16] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(folder, out):
    overrides = [*SMALLER, f"model.checkpoint={folder}"]
    words = [word for override in overrides for word in ("--override", override)]
    return run_all.main(["--scenario", "masked", "--quick", "--out", str(out), *words])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "pruned")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, checkpoint):
    out = tmp_path_factory.mktemp("run")
    assert run(checkpoint, out) == 0
    return out / "masked"


def read(run_dir, rel):
    return json.loads((run_dir / rel).read_text())


def test_the_dead_leave_once_gathered_and_not_in_the_stored_order(run_dir):
    widths = {mode: read(run_dir, f"{mode}/solve.json")["widths"] for mode in ("linear", "oneshot", "iterative")}
    assert widths["iterative"] == {"heads.0": 3, "ffn.0": FFN - DEAD, "heads.1": 3, "ffn.1": FFN - DEAD}
    assert widths["oneshot"] == widths["iterative"] and widths["linear"]["ffn.0"] > FFN - DEAD
    for mode in widths:
        (attempt,) = read(run_dir, f"{mode}/solve.json")["attempts"]
        assert attempt["accepted"] and attempt["validation"]["drop_pp"] == 0


def test_every_arm_is_the_masked_model(run_dir, checkpoint):
    error = read(run_dir, "verdict.json")["vs_dense"]["max_rel_error"]
    assert error["float64"] < 1e-5 and error["float32"] < 1e-5
    given, found = load_model(resolve_checkpoint(str(checkpoint)))[0], icd.load_optimized(run_dir / "iterative/model")
    ids = torch.arange(1000, 1040)[None]
    wanted, got = (model_outputs(model.double(), {"input_ids": ids}) for model in (given, found))
    assert outputs_error(got, wanted) < 1e-5
    quality = read(run_dir, "verdict.json")["same_quality"]["quality_drop_pp"]
    assert {arm: item["value"] for arm, item in quality.items()} == {"linear": 0, "iterative": 0}


def test_the_pages_say_what_left_and_what_cannot(run_dir):
    index = (run_dir / "index.html").read_text()
    assert f"Of {2 * FFN} FFN neurons {2 * DEAD} are dead in the given model: {2 * DEAD} leave once they are" in index
    assert "Zeros that cannot leave" in index and (run_dir / "figures/masked.png").is_file()
    assert "every arm, the masked model, float64" in (run_dir / "report.html").read_text()
    graph = (run_dir / "01_build_graph.html").read_text()
    assert "What the mask made dead, and what cannot leave" in graph and "Sensitivity map" in graph
    assert "not there" not in graph
    assert read(run_dir, "verdict.json")["determinism"]["reason"].startswith("the permutations are the order in which")


def test_a_model_that_nobody_pruned_ends_the_run_with_the_cure(tmp_path, capsys):
    assert run(tiny_checkpoint(tmp_path / "plain", pruned=False), tmp_path / "out") == 6
    assert "nothing is dead in this BertModel" in capsys.readouterr().err
    assert (tmp_path / "out" / "masked" / "index.html").is_file()
