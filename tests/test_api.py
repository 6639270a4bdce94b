"""icd.optimize on a tiny model: the caller's model is untouched, the result obeys the judge, and it reloads."""

import pytest
import torch
from tiny_encoders import tiny_bert
from transformers import AutoModel

import icd_lib as icd
from icd_lib.errors import ConfigError, MeasureError, TransformError

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


def outputs(model, inputs):
    with torch.inference_mode():
        return model(**inputs).last_hidden_state


def test_a_result_the_judge_accepts_is_smaller_and_leaves_the_given_model_alone(problem):
    model, calibration = problem
    before = outputs(model, calibration[0])
    size = sum(p.numel() for p in model.parameters())
    opt = icd.optimize(model, calibration, quality=lambda m: 50.0, mode="oneshot", **SETTINGS)
    assert torch.equal(outputs(model, calibration[0]), before)
    assert opt.report["accepted_strength"] == -0.02
    assert sum(p.numel() for p in opt.model.parameters()) < size


def test_a_judge_that_always_refuses_gets_the_dense_function_back(problem):
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
        ({"tyle": 4}, ConfigError, "tyle"),
        ({"quality": lambda m: float("nan")}, MeasureError, "finite"),
    ],
)
def test_bad_arguments_are_named(problem, change, error, words):
    model, calibration = problem
    arguments = {"quality": lambda m: 50.0, "mode": "oneshot", **SETTINGS} | change
    with pytest.raises(error, match=words):
        icd.optimize(model, calibration, **arguments)


def test_empty_calibration_is_refused(problem):
    with pytest.raises(TransformError, match="empty"):
        icd.optimize(problem[0], [], quality=lambda m: 50.0)


def test_find_axes_returns_verified_axes_of_every_kind(problem):
    model, calibration = problem
    kinds = {axis.kind for axis in icd.find_axes(model, calibration[0])}
    assert kinds == {"ffn", "heads", "qk", "v", "residual", "vocab"}


def test_unknown_names_of_the_package_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        icd.optimise  # noqa: B018
