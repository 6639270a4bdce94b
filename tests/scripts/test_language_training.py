"""Training is a function of the recipe, in one go or in slices."""

import dataclasses

import language_training
import numpy as np
import pytest
import torch
from language_recipes import build_model
from language_text import Batches, streams_of
from language_training import build_optimizer, learning_rate, loss_of, train, train_step

from icd_lib.errors import ArtifactError

DECAYING = {
    "llama-worlds": {
        *(f"self_attn.{name}_proj.weight" for name in "qkvo"),
        *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
    },
    "mamba-worlds": {f"mixer.{name}.weight" for name in ("in_proj", "x_proj", "dt_proj", "out_proj")},
}


def quiet(line):
    pass


def test_the_learning_rate_warms_up_and_comes_down(recipe):
    rates = [learning_rate(step, recipe) for step in range(recipe.steps + 1)]
    assert rates[2] == recipe.learning_rate and rates[0] == pytest.approx(recipe.learning_rate / 3)
    assert rates[-1] == pytest.approx(recipe.final_rate * recipe.learning_rate)
    assert all(a > b for a, b in zip(rates[3:], rates[4:], strict=False))
    assert np.allclose(np.diff(rates[recipe.decay_from :], n=2), 0), "straight at the end"
    longer = dataclasses.replace(recipe, steps=24, decay_from=23)
    assert [learning_rate(step, longer) for step in range(9)] == rates[:9], "the cosine does not know when it is left"


def test_only_matrices_decay(recipe):
    model = build_model(recipe)
    decaying, kept = (group["params"] for group in build_optimizer(model, recipe).param_groups)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".", 3)[-1] for p in decaying} == DECAYING[recipe.name]
    assert len(decaying) + len(kept) == len(names)


def test_a_step_moves_every_weight_and_lowers_the_loss(recipe, text, tokenizer):
    model = build_model(recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens = Batches(streams_of(text, tokenizer), recipe).at(0)
    optimizer = build_optimizer(model, recipe)
    losses = [train_step(model, optimizer, tokens, 2, recipe) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert losses[0] == pytest.approx(float(loss_of(build_model(recipe), tokens).detach()), rel=1e-2)


def test_products_in_bfloat16_leave_weights_and_gradients_in_float32(recipe):
    model = build_model(dataclasses.replace(recipe, bf16=True))
    loss = loss_of(model, torch.arange(34).reshape(2, 17), bf16=recipe.bf16)
    loss.backward()
    assert loss.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_a_loss_that_is_not_finite_stops_the_training(recipe):
    model = build_model(recipe)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="loss of step 5 is nan"):
        train_step(model, build_optimizer(model, recipe), torch.zeros(2, 17, dtype=torch.int64), 5, recipe)


def test_slices_give_the_same_weights_and_curve_as_one_go(recipe, text, tokenizer, tmp_path, monkeypatch):
    whole, log = train(recipe, text, tokenizer, tmp_path / "whole", report=quiet)
    assert log["step"] == recipe.steps and [step for step, _ in log["loss"]] == [4, 8, 12]
    assert [entry[0] for entry in log["validation"]] == [6, 12]
    assert set(log["validation"][0][3]) == set(text.seen)
    assert log["validation"][0][1] == pytest.approx(np.mean(list(log["validation"][0][3].values())), abs=1e-4)
    clock = iter(range(10_000))
    monkeypatch.setattr(language_training.time, "perf_counter", lambda: next(clock))  # a second per look
    slices = 0
    while True:
        sliced, story = train(recipe, text, tokenizer, tmp_path / "sliced", seconds=6, report=quiet)
        slices += 1
        if story["step"] == recipe.steps:
            break
    assert slices > 2
    assert story["loss"] == log["loss"] and story["validation"] == log["validation"]
    for a, b in zip(whole.parameters(), sliced.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ArtifactError, match="another recipe"):
        train(dataclasses.replace(recipe, seed=1), text, tokenizer, tmp_path / "whole", report=quiet)
