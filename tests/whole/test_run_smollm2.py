"""The decoder's scenario for real, as a quick run goes: six notebooks on the small decoder of this project."""

import json

import pytest

import run_all

pytestmark = [pytest.mark.slow, pytest.mark.notebooks]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    assert run_all.main(["--scenario", "smollm2", "--quick", "--out", str(out)]) == 0
    return out / "smollm2"


def read(run_dir, rel):
    return json.loads((run_dir / rel).read_text())


def test_every_stage_left_its_notebook(run_dir):
    shared = ["00_setup_check", "01_build_graph", "03_measure", "04_validate", "05_report"]
    for name in [*shared, *(f"{mode}/02_solve" for mode in ("linear", "oneshot", "iterative"))]:
        assert (run_dir / f"{name}.ipynb").is_file() and (run_dir / f"{name}.html").is_file(), name


def test_layouts_keep_the_function_and_are_the_same_when_solved_again(run_dir):
    report = read(run_dir, "measure/measure.json")
    assert report["equality"]["same_transform"]["float64"] < 1e-10
    determinism = read(run_dir, "verdict.json")["determinism"]
    assert determinism["pi_hash_equal"] and determinism["w_hash_equal"]


def test_iterative_packs_the_tokens_that_stay_into_whole_pages(run_dir):
    points = read(run_dir, "measure/generation.json")["points"]
    assert {(point["unit"], point["split"]) for point in points} >= {("token", "unseen"), ("page", "seen")}
    for point in points:
        assert point["pages_iterative"] == point["keep"] * point["pages_full"]
        assert point["pages_linear"] >= point["pages_iterative"]
        if point["unit"] == "page":
            assert point["pages_linear"] == point["pages_iterative"]
    assert any(point["pages_linear"] > point["pages_iterative"] for point in points if point["unit"] == "token")


def test_every_arm_decodes_and_what_is_exported_was_judged_where_it_decodes(run_dir):
    found = read(run_dir, "measure/generation.json")
    (shape,) = found["clock"]
    assert (shape["batch"], shape["context"]) == (1, 128)
    assert {"dense", "dense_again", "linear", "iterative", "iterative_openvino"} <= set(shape["arms"])
    assert {point["split"] for point in found["deployed"]} == {"unseen", "seen"}
    assert {item["split"] for item in found["cloze"]} <= {"unseen", "seen"}
