"""icd.optimize on a tiny model: the caller's model is untouched, the result obeys the judge, and it reloads."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoders import tiny_bert
from transformers import AutoModel

import icd_lib as icd
from icd_lib import api
from icd_lib.errors import ConfigError, MeasureError, TransformError
from icd_lib.transforms.observed import Findings
from icd_lib.transforms.sparsity.allocate import LatencyTable

pytestmark = pytest.mark.usefixtures("unsettled")
SETTINGS = {
    "tile": 8,
    "distill_steps": 2,
    "strengths": (-0.02,),
    "max_rounds": 1,
}


@pytest.fixture(scope="module")
def problem():
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    model = tiny_bert().eval()
    calibration = [
        {
            "input_ids": torch.randint(0, model.config.vocab_size, (4, 12), generator=generator),
            "attention_mask": torch.ones(4, 12, dtype=torch.long),
        }
        for _ in range(3)
    ]
    return model, calibration


@pytest.fixture
def known_machine(monkeypatch):
    """Tables by hand instead of measured ones: all FFN neurons but a tile save 5.4 ms of 20, 27 %."""

    def measure(observed, settings, device):
        widths, heads = np.arange(8, 81, 8), np.arange(1, 5)
        tables = {
            "ffn": LatencyTable("ffn", widths, 2.0 * (1 - widths / 80)),
            "heads": LatencyTable("heads", heads, 0.4 * (1 - heads / 4)),
        }
        return Findings(tables, 20.0, {item.axis: 1.0 for item in observed.adapter.prunable()})

    monkeypatch.setattr(api, "_measure_machine", measure)


def outputs(model, inputs):
    with torch.inference_mode():
        return model(**inputs).last_hidden_state


def test_a_result_the_judge_accepts_is_smaller_and_leaves_the_given_model_alone(problem, known_machine):
    model, calibration = problem
    before = outputs(model, calibration[0])
    size = sum(p.numel() for p in model.parameters())
    opt = icd.optimize(model, calibration, quality=lambda m: 50.0, mode="oneshot", **SETTINGS)
    assert torch.equal(outputs(model, calibration[0]), before)
    assert opt.report["accepted_strength"] == -0.02
    assert sum(p.numel() for p in opt.model.parameters()) < size


def test_a_judge_that_always_refuses_gets_the_dense_function_back(problem, known_machine):
    model, calibration = problem
    scores = iter([80.0, *[10.0] * 20])
    opt = icd.optimize(model, calibration, quality=lambda m: next(scores), mode="iterative", **SETTINGS)
    assert opt.report["accepted_strength"] == 0.0
    assert all(not attempt["accepted"] for attempt in opt.report["attempts"])
    error = (outputs(opt.model, calibration[0]) - outputs(model, calibration[0])).abs().max()
    assert error < 1e-5


def test_the_saved_result_reloads_to_the_same_outputs(problem, tmp_path):
    model, calibration = problem
    opt = icd.optimize(model, calibration, quality=lambda m: 50.0, mode="oneshot", **SETTINGS)
    opt.save_pretrained(tmp_path / "small")
    assert torch.equal(
        outputs(icd.load_optimized(tmp_path / "small"), calibration[0]), outputs(opt.model, calibration[0])
    )
    opt.save_pretrained(tmp_path / "stock", uniform=True)
    stock = AutoModel.from_pretrained(tmp_path / "stock").eval()
    assert (outputs(stock, calibration[0]) - outputs(opt.model, calibration[0])).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mode": "magic"}, ConfigError, "magic"),
        ({"tyle": 4}, ConfigError, "unknown key 'tyle'; did you mean 'tile'?"),
        ({"tile": 0}, ConfigError, "tile is out of range: it takes an integer, at least 1; got 0"),
        ({"budget_pp": -1}, ConfigError, "budget_pp is out of range"),
        ({"quality": lambda m: float("nan")}, MeasureError, "finite"),
    ],
)
def test_bad_arguments_are_named(problem, known_machine, change, error, words):
    model, calibration = problem
    arguments = {"quality": lambda m: 50.0, "mode": "oneshot", **SETTINGS} | change
    with pytest.raises(error, match=words):
        icd.optimize(model, calibration, **arguments)


def test_a_dense_model_without_a_quality_is_refused(problem, known_machine):
    model, calibration = problem
    scores = iter([float("nan"), *[10.0] * 20])
    with pytest.raises(MeasureError, match="finite"):
        icd.optimize(model, calibration, quality=lambda m: next(scores), mode="oneshot", **SETTINGS)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_candidate_without_a_quality_is_refused_and_others_are_tried(problem, known_machine, score):
    model, calibration = problem
    scores = iter([80.0, score, *[80.0] * 20])
    opt = icd.optimize(model, calibration, quality=lambda m: next(scores), mode="iterative", **SETTINGS)
    first = opt.report["attempts"][0]
    assert first["why"][0]["code"] == "not finite" and "finite percentage" in first["reasons"][0]
    assert opt.report["accepted_strength"] == -0.02


def test_empty_calibration_is_refused(problem):
    with pytest.raises(TransformError, match="empty"):
        icd.optimize(problem[0], [], quality=lambda m: 50.0)


TARGET = SETTINGS | {"axes": ("ffn",), "distill_steps": 0}


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_a_latency_that_is_asked_for_is_reached_whatever_quality_says(problem, known_machine, recwarn, mode):
    model, calibration = problem
    scores = iter([80.0, *[10.0] * 20])
    options = TARGET | {"mode": mode, "latency_target_rel": -0.2}
    opt = icd.optimize(model, calibration, quality=lambda m: next(scores), **options)
    assert opt.report["reached"] is True and opt.report["predicted_latency_rel"] <= -0.2
    assert opt.report["validation"]["drop_pp"] == 70
    assert [entry["strength"] for entry in opt.report["attempts"]] == [-0.1, -0.2]
    assert not [warning for warning in recwarn if "latency_target_rel" in str(warning.message)]


@pytest.mark.parametrize("mode", ["linear", "oneshot", "iterative"])
def test_a_latency_that_is_out_of_reach_is_warned_of_and_reported(problem, known_machine, mode):
    model, calibration = problem
    options = TARGET | {"mode": mode, "latency_target_rel": -0.4}
    with pytest.warns(UserWarning, match=r"latency_target_rel=-40% was not reached: .* predict -2\d\.\d% for the best"):
        opt = icd.optimize(model, calibration, quality=lambda m: 50.0, **options)
    assert opt.report["reached"] is False and opt.report["accepted_strength"] == -0.2
    assert opt.report["attempts"][-1]["reasons"], "the warning ends with why"
    with pytest.warns(UserWarning, match=r"predict \+0\.0% for the best candidate \(.*\)"):
        nothing = icd.optimize(model, calibration, quality=lambda m: 50.0, **options | {"latency_target_rel": -0.9})
    assert nothing.report["accepted_strength"] == 0.0 and nothing.report["predicted_latency_rel"] == 0.0


def test_without_a_target_nothing_is_said_of_one(problem, known_machine, recwarn):
    model, calibration = problem
    opt = icd.optimize(model, calibration, quality=lambda m: 50.0, **TARGET, mode="oneshot")
    assert opt.report["reached"] is None
    assert [entry["what"] for entry in opt.report["attempts"]] == ["draft", "attempt"]
    assert not [warning for warning in recwarn if "latency_target_rel" in str(warning.message)]


def test_a_cost_that_rises_refuses_nothing(problem, known_machine):
    """`epsilon_j` chooses between layouts: however high, what quality accepts is accepted."""
    model, calibration = problem
    opt = icd.optimize(model, calibration, quality=lambda m: 50.0, **TARGET, epsilon_j=100.0)
    assert opt.report["attempts"][-1]["accepted"] and opt.report["accepted_strength"] == -0.02


def test_find_axes_returns_verified_axes_of_every_kind(problem):
    model, calibration = problem
    kinds = {axis.kind for axis in icd.find_axes(model, calibration[0])}
    assert kinds == {"ffn", "heads", "qk", "v", "residual", "vocab"}


def test_unknown_names_of_the_package_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        icd.optimise  # noqa: B018


def test_editors_see_the_names_that_the_package_has():
    """What is imported under TYPE_CHECKING is what `__getattr__` finds, from the same modules."""
    tree = ast.parse(Path(icd.__file__).read_text(encoding="utf-8"))
    (guarded,) = [n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    seen = {alias.asname: node.module for node in guarded.body for alias in node.names if alias.name == alias.asname}
    assert seen == icd._WHERE and {"__version__", *seen} == set(icd.__all__)
    for name in icd.__all__:
        assert hasattr(icd, name), name
    assert (Path(icd.__file__).parent / "py.typed").is_file()


def test_an_ffn_that_no_tile_divides_is_told_and_the_heads_are_pruned(problem, known_machine):
    model, calibration = problem
    options = TARGET | {"axes": ("ffn", "heads"), "tile": 32, "latency_target_rel": -0.02, "mode": "linear"}
    with pytest.warns(
        UserWarning, match=r"80 FFN neurons are no whole number of tiles of 32.* to 20, which divides 80"
    ):
        opt = icd.optimize(model, calibration, quality=lambda m: 50.0, **options)
    assert opt.report["unfit"] and opt.report["reached"]
    widths = opt.report["widths"]
    assert {widths[axis] for axis in widths if axis.startswith("ffn")} == {80}
    assert min(widths[axis] for axis in widths if axis.startswith("heads")) < 4
