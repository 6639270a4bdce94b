"""The language model's scenario for real, on the trained embedded Mamba: six notebooks in quick mode."""

import json

import pytest

import run_all

pytestmark = [pytest.mark.slow, pytest.mark.notebooks]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert run_all.main(["--scenario", "mamba", "--quick", "--out", str(out)]) == 0
    return out / "mamba"


def read(run_dir, rel):
    return json.loads((run_dir / rel).read_text())


def test_quality_is_that_of_a_language_model(run_dir):
    quality = read(run_dir, "measure/measure.json")["quality"]
    for arm in ("linear", "oneshot", "iterative"):
        unseen = quality[arm]["unseen"]
        assert unseen["dense_perplexity"] > 1 and 0.9 < unseen["perplexity_ratio"]["value"] < 1.5
        assert unseen["n_items"] >= 5_000
    assert quality["iterative"]["unseen"]["dense_perplexity"] > quality["iterative"]["seen"]["dense_perplexity"]


def test_the_loop_made_the_model_smaller_and_kept_its_function_between_layouts(run_dir):
    report = read(run_dir, "measure/measure.json")
    assert report["sizes"]["iterative"]["parameter_bytes"] < report["sizes"]["dense"]["parameter_bytes"]
    assert report["equality"]["same_transform"]["float32"] < 1e-5
    assert report["equality"]["same_transform"]["float64"] < 1e-10


def test_layouts_and_graphs_are_the_same_when_solved_again(run_dir):
    determinism = read(run_dir, "verdict.json")["determinism"]
    assert determinism["pi_hash_equal"] and determinism["w_hash_equal"]


def test_every_arm_generates_and_layouts_say_the_same(run_dir):
    found = read(run_dir, "measure/decoding.json")
    assert [(shape["batch"], shape["context"]) for shape in found["clock"]] == [(1, 64), (8, 64)]
    for shape in found["clock"]:
        assert {"dense", "dense_again", "stock", "linear", "oneshot", "iterative", "same_transform"} <= set(
            shape["arms"]
        )
        bytes_read = {arm: entry["bytes_per_token"]["value"] for arm, entry in shape["arms"].items()}
        assert bytes_read["iterative"] < bytes_read["dense"]
    assert {(item["arm"], item["other"]): item["equal"] for item in found["same_tokens"]} == {
        ("iterative", "same_transform"): 4,
        ("dense", "stock"): 4,
    }
