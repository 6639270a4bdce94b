"""The shapes that recipes give, and what is done to every model before it is trained."""

import dataclasses

import pytest
import torch
from language_recipes import RECIPES, Recipe, build_model, install_dropout


def test_a_llama_of_four_million_parameters_in_eight_megabytes():
    recipe = RECIPES["llama"]
    model = build_model(recipe)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (256, 4, 704)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (8, 4, 32)
    assert config.max_position_embeddings == 512 and config.vocab_size == 4096
    assert model.get_input_embeddings().weight is model.lm_head.weight
    assert model.num_parameters() == 4_000_000


def test_a_mamba_of_about_as_many_in_the_usual_proportions():
    model = build_model(RECIPES["mamba"])
    mixer, config = model.backbone.layers[0].mixer, model.config
    assert (config.hidden_size, mixer.intermediate_size, mixer.ssm_state_size) == (256, 512, 16)
    assert (mixer.conv_kernel_size, mixer.time_step_rank) == (4, 16)
    assert 3_500_000 < model.num_parameters() < 4_500_000


def test_recipes_are_frozen_and_differ():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {
        "llama": "llama-worlds",
        "mamba": "mamba-worlds",
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        RECIPES["llama"].steps = 1
    assert all(isinstance(recipe, Recipe) and recipe.most_passes == 8 for recipe in RECIPES.values())


def test_the_seed_decides_the_weights_and_writers_start_small(recipe):
    first, again = build_model(recipe), build_model(recipe)
    other = build_model(dataclasses.replace(recipe, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        plain = recipe.build()
    writers = list(zip(recipe.writers(first), recipe.writers(plain), strict=True))
    assert len(writers) == (4 if recipe.name == "llama-worlds" else 2)
    for scaled, stock in writers:
        assert torch.allclose(scaled.weight, stock.weight / len(writers) ** 0.5)


def test_dropout_acts_in_training_alone(recipe):
    ids = torch.arange(12)[None]
    model = recipe.quicken(build_model(recipe))
    plain = model.eval()(input_ids=ids, use_cache=False).logits
    install_dropout(model, recipe)
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, plain)
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(input_ids=ids, use_cache=False).logits, plain)
