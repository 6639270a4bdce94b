"""`icd.optimize` with arguments that nobody checked: an error of ours, or a model that is what its report says."""

import copy
import inspect
import json
import math
import random
import warnings

import numpy as np
import pytest
import torch
from fuzzing import answers, fuzz, junk
from hypothesis import strategies as st
from tiny_problems import assert_same_state, small_batches, small_model, state_of

import icd_lib as icd
from icd_lib.axes.verify import model_outputs
from icd_lib.codesign.options import NEEDS_MORE, Settings
from icd_lib.codesign.tiles import unfit_axes
from icd_lib.models.families import find_adapter
from icd_lib.options.field import fields

SIZES = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}
MODELS = {width: small_model(dtype=torch.float32, intermediate_size=width, **SIZES) for width in (5, 16, 20)}
BATCHES = small_batches(2, rows=3, length=6)


def mean_quality(model):
    """A quality that depends on the weights and on nothing else, in percent."""
    with torch.no_grad():
        return 50 + 0.01 * float(model(**BATCHES[0]).last_hidden_state.tanh().mean())


def tampering(model):
    """What a careless function does to everything that it can reach."""
    value = mean_quality(model)
    model.train()
    for parameter in model.parameters():
        parameter.data.mul_(2)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)
    return value


def drawing(model):
    return mean_quality(model) - 0.05 * float(torch.rand(()))


QUALITIES = {
    "constant": lambda model: 50.0,
    "fraction": lambda model: 0.5,
    "weights": mean_quality,
    "tampering": tampering,
    "drawing": drawing,
    "tensor": lambda model: torch.tensor(mean_quality(model)),
    "numpy": lambda model: np.float32(mean_quality(model)),
    "nan": lambda model: math.nan,
    "bool": lambda model: True,
    "none": lambda model: None,
    "text": lambda model: "50",
    "complex": lambda model: 50 + 0j,
    "huge": lambda model: 10**400,
    "vector": lambda model: torch.ones(3),
}
NAMES = inspect.signature(icd.optimize).parameters
ARGUMENTS = ("quality_budget_pp", "latency_target_rel", "seed")
FURTHER = [name for name in fields(Settings) if name not in (*ARGUMENTS, *NEEDS_MORE)]

numbers = st.sampled_from([-1.0, -0.6, -0.3, -0.05, 0, 0.3, 1, 2, 5, 7, 16, 100, 10**9, 2**63, 1e300, 5e-324])
values = (
    numbers
    | st.sampled_from([math.nan, math.inf, -math.inf, None, True, "ffn", "iterativ", (), ("ffn",), ["heads"], ("x",)])
    | st.lists(numbers, max_size=3)
    | junk
)


@st.composite
def mostly(draw, likely, rest=values):
    """Now and then anything; seldom, so that most cases go all the way (0 would be drawn too often)."""
    return draw(rest if draw(st.integers(0, 19)) == 13 else likely)


LIKELY = {
    "axes": st.sampled_from([("ffn",), ("heads",), ["ffn", "heads"], ("inner",)]),
    "head_dim": st.integers(0, 9),
    "tile": st.integers(1, 24),
    "ridge": st.sampled_from([1e-12, 1e-3, 0.01, 1.0, 1e6, 1e300]),
    "sequential": st.booleans(),
    "uniform": st.booleans(),
    "distill_steps": st.integers(0, 3),
    "distill_lr": st.sampled_from([1e-8, 4e-4, 1.0]),
    "strengths": st.lists(st.floats(-0.95, 0), min_size=1, max_size=3),
    "max_rounds": st.integers(1, 3),
    "epsilon_j": st.sampled_from([0.0, 1e-3, 10.0]),
    "nnz_cap": st.sampled_from([2, 40, 200_000]),
}


@st.composite
def settings_given(draw):
    """Some further settings, most of them plausible; a loop that stays short where they are."""
    given = {"tile": 4, "distill_steps": draw(st.integers(0, 1)), "max_rounds": 2, "strengths": (-0.05, -0.3)}
    for name in draw(st.lists(st.sampled_from(FURTHER), max_size=3, unique=True)):
        given[name] = draw(mostly(LIKELY[name]) if name in LIKELY else values | st.none())
    if draw(st.integers(0, 40)) == 23:
        odd = draw(st.text(max_size=6) | st.sampled_from(["tyle", "steps", "quality_budget_pp", *NEEDS_MORE]))
        if odd not in NAMES:  # twice one argument is refused by Python itself
            given[odd] = draw(values)
    for name, most in (("distill_steps", 3), ("max_rounds", 3)):  # a long loop is no other case
        if type(given[name]) is int and given[name] > most:
            given[name] = most
    return given


@st.composite
def calibrations(draw):
    """Most often batches, else what somebody might pass for them."""
    batches = [dict(batch) for batch in BATCHES[: draw(st.integers(1, 2))]]
    form = draw(st.integers(-20, 20))
    if form == 0:
        return draw(junk)
    if form == 1:
        batches[-1][draw(st.sampled_from(["input_ids", "attention_mask", "labels", "inputs_embeds", "x"]))] = draw(junk)
    elif form == 2:
        rows, length = draw(st.integers(0, 3)), draw(st.integers(0, 30))
        batches[-1] = {"input_ids": torch.full((rows, length), draw(st.integers(-2, 80)))}
    elif form == 3:
        del batches[-1]["input_ids"]
    elif form == 4:
        batches[0]["attention_mask"] = batches[0]["attention_mask"] * draw(st.sampled_from([0, 1, 2, 0.5, math.nan]))
    elif form == 5:
        batches = [{name: value.tolist() for name, value in batch.items()} for batch in batches]
    elif form == 6:
        return batches[0]
    elif form == 7:
        batches = [{name: value.numpy() for name, value in batch.items()} for batch in batches]
    elif form == 8:
        return draw(st.sampled_from([[], [{}], None, BATCHES[0]["input_ids"], [tuple(BATCHES[0].values())]]))
    return batches


@pytest.fixture(scope="module", autouse=True)
def compiled(unsettled):
    """What is compiled or imported on first use is there, so that no case is taken to write files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for mode in ("linear", "oneshot", "iterative"):
            icd.optimize(MODELS[16], BATCHES, quality=lambda m: 50.0, mode=mode, tile=4, distill_steps=1, max_rounds=1)


def surroundings():
    state = np.random.get_state()  # noqa: NPY002
    return (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        random.getstate(),
        (state[0], state[1].tolist(), *state[2:]),
    )


@fuzz(
    40,
    2000,
    {
        "width": 16,
        "training": True,
        "batches": BATCHES,
        "quality": "tampering",
        "budget": 1.0,
        "target": None,
        "mode": "iterative",
        "seed": 0,
        "further": {"tile": 4, "distill_steps": 1, "max_rounds": 1},
    },
    {  # moments so near to singular that rounding eats a pivot
        "width": 20,
        "training": False,
        "batches": small_batches(1, rows=3, length=6),
        "quality": "constant",
        "budget": 0.0,
        "target": None,
        "mode": "linear",
        "seed": 0,
        "further": {"tile": 4, "distill_steps": 0, "max_rounds": 2, "ridge": 1e-12},
    },
    width=st.sampled_from(list(MODELS)),
    training=st.booleans(),
    batches=calibrations(),
    quality=mostly(st.sampled_from(list(QUALITIES)[:7]), st.sampled_from(list(QUALITIES))),
    budget=mostly(st.sampled_from([0.0, 0.1, 1.0, 100.0])),
    target=mostly(st.sampled_from([None, None, -0.2, -0.9])),
    mode=mostly(st.sampled_from(["linear", "oneshot", "iterative"])),
    seed=mostly(st.integers(0, 2**32 - 1)),
    further=settings_given(),
)
def test_any_arguments(folder, width, training, batches, quality, budget, target, mode, seed, further):
    """An `IcdError`, or a finite model in eval mode that is what the report says; the caller has all as it was."""
    model = MODELS[width].train(training)
    state, modes, before = state_of(model), [module.training for module in model.modules()], surroundings()
    given = copy.deepcopy(batches)
    try:
        with answers(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            arguments = {"budget_pp": budget, "latency_target_rel": target, "mode": mode, "seed": seed, **further}
            found = icd.optimize(model, batches, quality=QUALITIES[quality], **arguments)
            check_result(found, model, further)
            if target is None:
                assert all(not a["accepted"] or a["validation"]["drop_pp"] <= budget for a in found.report["attempts"])
            again = found.report["validation"]
            if again is not None and quality in ("weights", "tensor", "numpy"):
                assert float(QUALITIES[quality](found.model)) == again["quality_pct"]
    finally:
        assert surroundings() == before
        assert [module.training for module in model.modules()] == modes
        assert all(not parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
        assert_same_state(model, state)
        assert repr(batches) == repr(given)


def check_result(found, model, further):
    result, report = found.model, found.report
    assert not any(module.training for module in result.modules())
    assert all(torch.isfinite(tensor).all() for tensor in result.state_dict().values())
    assert all(torch.isfinite(value).all() for value in model_outputs(result, BATCHES[0]).values())
    assert not {id(p) for p in result.parameters()} & {id(p) for p in model.parameters()}
    sizes = {item.axis: item.elements for item in find_adapter(result).prunable()}
    assert sizes == report["widths"]
    accepted = [entry for entry in report["attempts"] if entry["accepted"] and entry["what"] == "attempt"]
    if accepted:
        assert accepted[-1]["widths"] == sizes and accepted[-1]["validation"] == report["validation"]
        assert accepted[-1]["strength"] == report["accepted_strength"]
    else:
        assert report["accepted_strength"] == 0 and report["validation"] is None
        assert sizes == {item.axis: item.elements for item in find_adapter(model).prunable()}
    told = {name: value for name, value in further.items() if name not in NEEDS_MORE}
    assert report["unfit"] == unfit_axes(find_adapter(model), Settings(**told), report["mode"])
    json.dumps(report, allow_nan=False)
