"""The whole scenario for real: six notebooks through the command line in quick mode, on the trained embedded model."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoModel

import icd_lib as icd
import run_all
from icd_lib.axes.permutation import hash_permutation
from icd_lib.workloads.model.arms import load_saved

pytestmark = pytest.mark.notebooks

SMALLER = [
    "data.test_items=60",
    "data.validation_items=40",
    "transform.rate=0.3",  # whatever is measured while other tests run: how much goes is not what is tested here
    "data.seen=[news, docstrings]",
    "data.selection=[verses, manual]",
    "data.unseen=[products, glosses]",
    "measure.repeats=6",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    overrides = [word for override in SMALLER for word in ("--override", override)]
    assert run_all.main(["--scenario", "bert", "--quick", "--out", str(out), *overrides]) == 0
    return out / "bert"


def read(run_dir, rel):
    return json.loads((run_dir / rel).read_text())


def test_every_stage_left_its_notebook_page_and_files(run_dir):
    shared = ["00_setup_check", "01_build_graph", "03_measure", "04_validate", "05_report"]
    wanted = [*shared, *(f"{mode}/02_solve" for mode in ("linear", "oneshot", "iterative"))]
    for name in wanted:
        assert (run_dir / f"{name}.ipynb").is_file() and (run_dir / f"{name}.html").is_file(), name
    for name in (
        "index.html",
        "report.html",
        "report.csv",
        "verdict.json",
        "manifest.json",
        "run.log",
        "config.lock.json",
    ):
        assert (run_dir / name).stat().st_size > 100, name


def test_pages_open_offline_and_name_no_machine_path(run_dir):
    for page in run_dir.rglob("*.html"):
        text = page.read_text()
        assert not re.search(r"""(?:src|href)=["']https?://""", text), page.name
        assert str(run_dir) not in text, page.name


def test_the_iterative_model_is_smaller_and_reloads_alone(run_dir):
    model = icd.load_optimized(run_dir / "iterative" / "model")
    dense = read(run_dir, "dense/metrics.json")["parameter_bytes"]
    assert sum(p.numel() * p.element_size() for p in model.parameters()) < 0.95 * dense
    assert read(run_dir, "iterative/metrics.json")["parameter_bytes"] < 0.95 * dense


def test_one_mask_in_two_layouts_is_one_function(run_dir):
    error = read(run_dir, "verdict.json")["same_transform"]["max_rel_error"]
    assert error["float64"] < 1e-10
    assert error["float32"] < 1e-5


def test_layouts_are_permutations_with_the_recorded_hashes(run_dir):
    for mode in ("linear", "iterative"):
        for name in ("perm_before", "perm_after"):
            axes = read(run_dir, f"{mode}/{name}.json")["axes"]
            assert {"ffn.0", "heads.0"} <= axes.keys()
            for axis, entry in axes.items():
                perm = np.array(entry["pi"])
                assert sorted(perm.tolist()) == list(range(entry["D"])), axis
                assert hash_permutation(perm) == entry["hash"], axis


def test_every_certificate_is_exact_and_the_second_solve_agrees(run_dir):
    certificates = read(run_dir, "iterative/solve.json")["certificates"]
    assert len(certificates) > 12
    assert max(item["max_rel_error"] for item in certificates) < 1e-10
    determinism = read(run_dir, "verdict.json")["determinism"]
    assert determinism == {"pi_hash_equal": True, "w_hash_equal": True, "max_metric_drift_rel": 0.0}


def test_nothing_unmeasured_passes_a_gate(run_dir):
    verdict = read(run_dir, "verdict.json")
    for gate in ("smoke", "strict"):
        assert verdict[gate]["checks"]["l2_pp"] == "not_measured"
        assert verdict[gate]["status"] in ("partial", "fail")
    assert verdict["same_quality"]["l2_pp"]["reason"]


def test_the_saved_masks_fit_the_saved_model(run_dir):
    class Folder:
        dir = run_dir

        @staticmethod
        def read_json(rel):
            return read(run_dir, rel)

    saved = load_saved(Folder, "iterative")
    for index, layer in enumerate(saved.model.encoder.layer):
        assert layer.output.dense.in_features == len(saved.origin[f"ffn.{index}"])
        assert layer.attention.self.num_attention_heads == len(saved.origin[f"heads.{index}"])


def test_padded_to_stock_shapes_plain_transformers_loads_the_same_function(run_dir, tmp_path):
    model = icd.load_optimized(run_dir / "iterative" / "model")
    icd.save_optimized(model, None, tmp_path / "stock", uniform=True)
    stock = AutoModel.from_pretrained(tmp_path / "stock").eval()
    ids = torch.arange(1000, 1040)[None]
    with torch.inference_mode():
        difference = stock(input_ids=ids).last_hidden_state - model(input_ids=ids).last_hidden_state
    assert difference.abs().max() < 1e-4


def test_seen_and_unseen_text_stand_side_by_side(run_dir):
    quality = read(run_dir, "verdict.json")["quality"]
    assert set(quality) == {"seen", "unseen"}
    for split, entry in quality.items():
        for reading in ("own_pp", "own_labelled_pp", "dropin_pp", "cosine"):
            assert entry[reading]["kind"] == "measured" and entry[reading]["ci95"], (split, reading)
        assert entry["worst_domain"] in entry["domains"]
    assert set(quality["unseen"]["domains"]).isdisjoint(quality["seen"]["domains"])
    judged = read(run_dir, "setup/setup.json")["data"]["judged"]
    assert set(judged["unseen"]) == set(quality["unseen"]["domains"])


def test_the_gates_judge_one_transform_in_two_layouts_and_the_harder_comparisons_stand_beside(run_dir):
    verdict = read(run_dir, "verdict.json")
    assert verdict["gates_comparison"] == "same_transform"
    assert set(verdict["other_comparisons"]) == {"same_quality", "vs_oneshot"}


def test_a_second_run_skips_everything(run_dir, capsys):
    overrides = [word for override in SMALLER for word in ("--override", override)]
    run_all.main(["--scenario", "bert", "--quick", "--resume", "--out", str(run_dir.parent), *overrides])
    assert capsys.readouterr().out.count("skipped") == 8
