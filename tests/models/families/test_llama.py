import copy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from icd_lib.axes.compact import compact
from icd_lib.axes.permute import permute
from icd_lib.axes.verify import model_outputs, outputs_error
from icd_lib.errors import AxisError, ConfigError
from icd_lib.models.checkpoint.optimized import load_optimized, save_optimized
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.checkpoint.uniform import to_uniform
from icd_lib.models.families import find_adapter
from icd_lib.models.families.llama.adapter import find_decoder
from icd_lib.models.shapes import SHAPES
from tests.tiny_decoders import FFN, SIZE, tiny_decoder
from tests.tiny_mambas import random_alive, tokens

INPUTS = {"input_ids": tokens(2, 9), "use_cache": False}


def uneven(model):
    """Take another share of every layer's neurons and KV groups out, in place."""
    for layer, (neurons, groups) in enumerate(((20, 2), (11, 3))):
        for name, size, kept in ((f"ffn.{layer}", FFN, neurons), (f"kv_groups.{layer}", 3, groups)):
            compact(model, find_adapter(model).axis(name), random_alive(size, kept, layer))
    return model


def permuted(model):
    rng = np.random.default_rng(0)
    for axis in find_adapter(model).axes():
        permute(model, axis, rng.permutation(axis.size))
    return model


def greedy(model, count=12):
    options = {"attention_mask": torch.ones_like(INPUTS["input_ids"]), "pad_token_id": 0}
    return model.generate(INPUTS["input_ids"], max_new_tokens=count, do_sample=False, **options)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral", "gemma"])
def test_decoding_with_a_cache_gives_the_same_tokens_in_another_order(kind):
    model = tiny_decoder(kind)
    assert torch.equal(greedy(permuted(copy.deepcopy(model))), greedy(model))
    smaller = uneven(tiny_decoder(kind))
    assert torch.equal(greedy(permuted(copy.deepcopy(smaller))), greedy(smaller))


def test_decoding_with_a_cache_is_decoding_without():
    model = uneven(tiny_decoder())
    whole = greedy(model, 8)
    step = INPUTS["input_ids"]
    for _ in range(8):
        step = torch.cat([step, model(step, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(whole, step)


def test_sizes_of_the_axes():
    axes = {axis.name: axis.size for axis in find_adapter(tiny_decoder()).axes()}
    assert (axes["ffn.1"], axes["kv_groups.0"], axes["q_heads.0.2"], axes["v.1.0"]) == (FFN, 3, 2, SIZE)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma"])
def test_a_pruned_decoder_padded_to_stock_shapes_computes_the_same(kind, tmp_path):
    model = permuted(uneven(tiny_decoder(kind)))
    wanted = model_outputs(model, INPUTS)
    uniform = to_uniform(model)
    assert (uniform.config.intermediate_size, uniform.config.num_key_value_heads) == (20, 3)
    assert outputs_error(model_outputs(uniform, INPUTS), wanted) <= 1e-12
    uniform.save_pretrained(tmp_path)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert outputs_error(model_outputs(stock, INPUTS), wanted) <= (1e-6 if kind == "gemma" else 1e-12)  # float32 scale


def test_groups_are_padded_to_a_number_that_a_config_may_have():
    model = tiny_decoder(num_attention_heads=8, num_key_value_heads=4, head_dim=6)
    for layer in range(2):
        compact(model, find_adapter(model).axis(f"kv_groups.{layer}"), np.array([True, True, True, False]))
    wanted = model_outputs(model, INPUTS)
    uniform = to_uniform(model)  # three groups of two: 6 heads, which divide 24
    assert uniform.config.num_attention_heads == 6
    narrow = tiny_decoder(num_attention_heads=12, num_key_value_heads=6, head_dim=6)
    for layer in range(2):
        compact(narrow, find_adapter(narrow).axis(f"kv_groups.{layer}"), np.arange(6) < 5)
    assert to_uniform(narrow).config.num_attention_heads == 12  # 10 heads do not divide 24
    assert outputs_error(model_outputs(uniform, INPUTS), wanted) <= 1e-12


def test_a_pruned_decoder_is_saved_and_loaded(tmp_path):
    model = uneven(tiny_decoder(dtype=torch.float32))
    loaded = load_optimized(save_optimized(model, None, tmp_path / "m"))
    assert torch.equal(greedy(loaded), greedy(model))


def test_a_mixture_of_experts_is_refused_by_name(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=20, num_key_value_heads=2, num_local_experts=2, **sizes))
    model.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model_type 'mixtral'; family 'llama' takes"):
        resolve_checkpoint(str(tmp_path), family="llama")
    with pytest.raises(ConfigError, match="no adapter knows"):
        find_adapter(model)


def test_experts_behind_a_dense_first_layer_are_refused_by_name():
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"moe_intermediate_size": 8, "num_experts": 2, "num_experts_per_tok": 1, "mlp_only_layers": [0]}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(vocab_size=20, num_key_value_heads=2, head_dim=8, **sizes))
    assert find_decoder(model) is not None, "its first layer is built like Llama's"
    with pytest.raises(ConfigError, match="no adapter knows the architecture Qwen3MoeForCausalLM"):
        find_adapter(model)


def test_norms_on_the_branch_are_refused():
    with pytest.raises(ConfigError, match="no adapter knows"):
        find_adapter(tiny_decoder("gemma2"))


def test_the_residual_stream_cannot_be_compacted():
    model = tiny_decoder()
    for name in ("residual", "q_heads.0.0", "v.0.1"):
        axis = find_adapter(model).axis(name)
        with pytest.raises(AxisError, match="cannot be compacted"):
            compact(model, axis, np.arange(axis.size) > 0)


def test_shapes_have_the_sizes_of_their_models():
    config = SHAPES["smollm2-135m"].config
    assert (config["hidden_size"], config["num_hidden_layers"], config["num_key_value_heads"]) == (576, 30, 3)
