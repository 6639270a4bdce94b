"""benchmarks/gpu.py without a device: its arms, its figures, its page, what it leaves out, and what it refuses."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.release.claims import load_claims
from icd_lib.scrub.text import find_leaks
from icd_lib.storage.atomic import to_json
from icd_lib.storage.json_text import parse_text, read_text
from icd_lib.storage.record_json import as_json

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import gpu
import gpu_arms
from gpu_arms import TILE, build_arm, dead_tiles, draw_masks, ffn_axes, kept_neurons
from gpu_figures import CONTROL, energy_figures, largest_error, latency_figures
from gpu_readme import readme

BENCHMARKS = Path(gpu.__file__).resolve().parent
WIDTH = 5 * TILE


@pytest.fixture(scope="module")
def models() -> dict:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=99, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=WIDTH
    )
    dense = BertModel(config, add_pooling_layer=False).eval().double()
    return {"dense": dense} | {arm: build_arm(dense, arm) for arm in gpu_arms.ARMS if arm != "dense"}


def output_of(model) -> np.ndarray:
    with torch.no_grad():
        return model(input_ids=torch.arange(20).reshape(2, 10)).last_hidden_state.numpy()


def test_the_three_layouts_of_the_mask_are_one_function_and_another_than_the_dense_one(models):
    masked = output_of(models["masked"])
    for arm in ("tile_dropped", "compacted"):
        assert largest_error(output_of(models[arm]), masked) < 1e-12
    assert largest_error(output_of(models["dense"]), masked) > 1e-4


def test_only_what_is_brought_together_can_be_dropped(models):
    widths = {arm: model.encoder.layer[1].intermediate.dense.out_features for arm, model in models.items()}
    assert widths == {"dense": WIDTH, "masked": WIDTH, "tile_dropped": WIDTH, "compacted": kept_neurons(WIDTH)}
    found = gpu_arms.facts(models)
    assert found["dead_tiles_in_stored_order"] == [0, 0] and found["dead_tiles_once_compacted"] == 2
    assert found["parameters"]["compacted"] < found["parameters"]["masked"] == found["parameters"]["dense"]


def test_a_mask_keeps_whole_tiles_worth_and_a_wholly_dead_tile_leaves(models):
    axes = ffn_axes(models["dense"])
    masks = draw_masks(axes)
    assert all(mask.sum() == kept_neurons(WIDTH) for mask in masks.values())
    assert not np.array_equal(*masks.values())
    alive = np.arange(WIDTH) // TILE != 2
    assert dead_tiles(alive).tolist() == [False, False, True, False, False]
    copied = copy.deepcopy(models["dense"])
    gpu_arms.zero_dead(copied, axes[0], alive)
    first, gone = copied.encoder.layer[0], slice(2 * TILE, 3 * TILE)
    rows, columns = first.intermediate.dense.weight, first.output.dense.weight
    assert not rows[gone].any() and not columns[:, gone].any()
    assert rows.any(dim=1).sum() == columns.any(dim=0).sum() == WIDTH - TILE


def rounds(factor: float, seed: int) -> np.ndarray:
    return factor * (1 + 0.01 * np.random.default_rng(seed).random(30))


SAMPLES = {
    "dense": rounds(2.0, 0),
    "masked": rounds(2.0, 1),
    "tile_dropped": rounds(2.0, 2),
    "compacted": rounds(1.5, 3),
}
SAMPLES |= {CONTROL: rounds(2.0, 4)}


def test_figures_compare_what_shared_a_round():
    found = latency_figures(SAMPLES, 4096)
    assert found["pairs"]["compacted vs masked"].value == pytest.approx(-0.25, abs=0.01)
    assert found["aa_holds_zero"] and CONTROL not in found["arms"]
    assert found["arms"]["compacted"].vs_dense.value == pytest.approx(-0.25, abs=0.01)
    shifted = latency_figures(SAMPLES | {CONTROL: 1.1 * SAMPLES[CONTROL]}, 4096)
    assert not shifted["aa_holds_zero"]


def test_an_output_that_is_not_finite_is_refused():
    with pytest.raises(MeasureError, match="not finite"):
        largest_error(np.array([np.nan]), np.ones(1))


def make_result(models) -> dict:
    """A result as it is written, with figures from the samples above and no figure of a device."""
    case = {"badges": [gpu.BADGE], "shape": "tiny", "batch": 2, "length": 10, **gpu_arms.facts(models), "runtimes": {}}
    errors = {"tile_dropped": 0.0, "compacted": 1e-7}
    row = {"label": "a row", "precision": "fp32", "max_rel_error_vs_masked": errors}
    case["runtimes"]["row"] = latency_figures(SAMPLES, 20) | row
    joules = {arm: list(1e-5 * SAMPLES[arm][:4]) for arm in ("dense", "compacted", CONTROL)}
    energy = {"case": "tiny", "runtime": "row", "counter": "a counter", "window_s": 5.0, "windows": 4}
    energy["idle_w"] = {"before": {"value": 80.0}, "after": {"value": 90.0}}
    energy |= energy_figures(joules, "a counter", 5.0)
    energy["board"] = {arm: {"sm_mhz": (1700, 1980), "event_reasons": ["software power cap"]} for arm in joules}
    device = {"name": "a board", "l2_mib": 50.0, "cuda": "13.0", "torch": "2", "transformers": "5"}
    result = {"title": "A title", "badges": [gpu.BADGE], "clock": "a clock", "device": device, "energy": energy}
    result |= {"cases": {"tiny": case}, "taken": [], "left_out": [{"step": "late", "reason": "no time"}], "failed": []}
    return parse_text(to_json(as_json(result)))


def test_the_page_shows_the_figures_of_the_json_and_what_is_not_there(models):
    page = readme(make_result(models))
    assert gpu.BADGE in page and "- late: no time" in page and "## Failed" not in page
    assert "−25." in page and "15.0" in page and "1700–1980" in page and "software power cap" in page
    assert "Selective scan" not in page and "L2 and DRAM" not in page


@pytest.fixture
def bench(monkeypatch, tmp_path, models):
    monkeypatch.setattr(gpu, "describe_device", lambda: make_result(models)["device"])
    return gpu.Bench(tmp_path)


def test_what_does_not_fit_is_named_and_one_failure_loses_no_other_step(bench, tmp_path):
    taken = []

    def fails(_):
        raise RuntimeError("CUDA error in /home/jane/kernel.cu")

    def refused(_):
        raise ResourceError("counters are for administrators; run as root")

    steps = [
        gpu.Step("first", 1, lambda _: taken.append("first"), "first"),
        gpu.Step("long", 100, lambda _: taken.append("long"), "long"),
        gpu.Step("broken", 1, fails, "broken"),
        gpu.Step("refused", 1, refused, "refused"),
        gpu.Step("last", 1, lambda _: taken.append("last"), "last"),
    ]
    bench.take(steps, minutes=1)
    found = read_text(tmp_path / "gpu.json")
    assert taken == ["first", "last"] and [step["step"] for step in found["taken"]] == ["first", "last"]
    assert [step["step"] for step in found["left_out"]] == ["long"] and "100 s" in found["left_out"][0]["reason"]
    assert found["failed"][0]["step"] == "broken" and "jane" not in found["failed"][0]["reason"]
    assert [step["step"] for step in found["not_measured"]] == ["refused"] and len(found["failed"]) == 1
    assert found["not_measured"][0]["where"] == "refused"
    page = (tmp_path / "README.md").read_text()
    assert "- long: " in page and "run as root" in page.partition("## Not measured here")[2].partition("## Failed")[0]
    assert not any(find_leaks((tmp_path / name).read_text()) for name in ("gpu.json", "ncu.json", "README.md"))


def test_what_the_claims_state_fits_into_the_minutes_by_the_seconds_of_the_kept_run():
    kept = read_text(BENCHMARKS.parent / "outputs/reference/gpu/gpu.json")
    seconds = {step["step"]: step["seconds"] for step in kept["taken"]}
    begun, spent = [], 0.0
    for step in gpu.plan_steps():
        if 60 * gpu.MINUTES - spent >= step.seconds:
            begun.append(step.where)
            spent += seconds.get(step.name, step.seconds)
    paths = [claim.source.partition(" : ")[2] for claim in load_claims() if claim.needs_cuda]
    assert paths and all(any(path.startswith(where) for where in begun) for path in paths)
    script = (BENCHMARKS.parent / "scripts/gpu_check.sh").read_text()
    assert f"BENCHMARK_MINUTES={gpu.MINUTES:g}\n" in script


def test_every_step_has_a_name_of_its_own_and_what_matters_most_comes_first():
    names = [step.name for step in gpu.plan_steps()]
    assert len(set(names)) == len(names)
    assert names[0] == "latency: bert-base 32x128, cuda_eager_bf16"
    firsts = [next(i for i, name in enumerate(names) if kind in name) for kind in ("ncu", "energy", "scan", "compile")]
    assert firsts == sorted(firsts)


def test_a_control_that_does_not_hold_zero_is_said_on_the_page(models):
    found = make_result(models)
    says = "does not hold 0: a change of 0.5 % or less"
    assert says not in readme(found)
    found["energy"] |= {"aa_holds_zero": False, "aa_control": {"value": -0.003, "ci95": [-0.005, -0.001]}}
    assert says in readme(found)


def test_it_runs_from_anywhere_with_the_library_beside_it(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import gpu, icd_lib; print(icd_lib.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == BENCHMARKS.parent / "icd_lib" / "__init__.py"


def test_without_a_device_it_ends_with_the_reason(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    assert gpu.main() == 3
    assert "no CUDA device" in capsys.readouterr().err and not list(tmp_path.iterdir())
