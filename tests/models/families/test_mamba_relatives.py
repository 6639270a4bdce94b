"""What looks like a Mamba and is none: refused by name and with the reason, by every door. A real one goes through."""

import json

import pytest
import torch
import transformers
from torch import nn

import icd_lib as icd
from icd_lib.errors import AxisError, ConfigError
from icd_lib.kernels.mixer import FastMambaMixer
from icd_lib.models.checkpoint.files import check_config
from icd_lib.models.checkpoint.loading import load_model, load_tokenizer
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.families import FAMILIES
from icd_lib.models.families.mamba.adapter import find_backbone
from icd_lib.models.grouped import grouped_modules
from tests.tiny_mambas import tiny_mamba, tiny_mamba2, tokens

HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
MAMBA2 = {"mamba_n_heads": 2, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}
TWO, FOUR = {"num_hidden_layers": 2}, {"num_hidden_layers": 4}
KINDS = {"layers_block_type": ["mamba", "attention"], "head_dim": 8}
SSM = {"mamba_num_heads": 2, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8}
RELATIVES = {  # a layer of Mamba, then one of attention
    "FalconMamba": TWO | {"state_size": 4, "time_step_rank": 3},
    "Jamba": TWO | HEADS | {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1},
    "Zamba": FOUR | HEADS | {"layers_block_type": ["mamba", "hybrid"] * 2},  # it shares its attention
    "Bamba": TWO | HEADS | MAMBA2 | {"attn_layer_indices": [1]},
    "NemotronH": HEADS | KINDS | SSM,
}


@pytest.mark.parametrize("name", RELATIVES)
def test_a_relative_is_refused_by_name_and_reason(name):
    """The model itself, built by Transformers: no door takes it for a Mamba because its first layer looks like one."""
    config = getattr(transformers, f"{name}Config")(vocab_size=32, hidden_size=16, pad_token_id=0, **RELATIVES[name])
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with pytest.raises(ConfigError, match=rf"no adapter knows the architecture {name}ForCausalLM \(.*Mamba.*\); supp"):
        icd.find_axes(model, {"input_ids": tokens(1, 4) % 32})


@pytest.mark.parametrize("model_type", FAMILIES["mamba"].refused)
def test_its_checkpoint_is_refused_before_any_weight_is_read(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    cure = "icd.permute takes the loaded model" if model_type == "mamba2" else "take one of Mamba layers alone, such as"
    says = rf"model_type '{model_type}' \(.*{cure}.*\); family 'mamba' takes \['mamba'\]"
    with pytest.raises(ConfigError, match=says):
        check_config(tmp_path, "mamba")


def test_the_names_are_those_of_transformers():
    assert set(FAMILIES["mamba"].refused) <= set(transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES)


def test_a_model_of_ones_own_with_other_layers_between_is_no_mamba():
    model = tiny_mamba()
    assert find_backbone(model) is not None
    model.backbone.layers[1] = nn.Linear(4, 4)
    assert find_backbone(model) is None


def test_pruning_a_mamba2_is_refused_and_says_what_holds_it():
    model = tiny_mamba2(dtype=torch.float32)
    with pytest.raises(AxisError, match="nothing of Mamba2ForCausalLM can be removed: the gated RMSNorm"):
        icd.optimize(model, [{"input_ids": tokens(2, 8)}], quality=lambda model: 50.0)


# The fields of config.json of `state-spaces/mamba-130m-hf`: those of mamba_ssm are among them.
CONFIG_130M = {
    "bos_token_id": 0,
    "conv_kernel": 4,
    "d_inner": 1536,
    "d_model": 768,
    "eos_token_id": 0,
    "expand": 2,
    "fused_add_norm": True,
    "hidden_act": "silu",
    "hidden_size": 768,
    "initializer_range": 0.1,
    "intermediate_size": 1536,
    "layer_norm_epsilon": 1e-05,
    "n_layer": 24,
    "num_hidden_layers": 24,
    "pad_token_id": 0,
    "pad_vocab_size_multiple": 8,
    "rescale_prenorm_residual": False,
    "residual_in_fp32": True,
    "rms_norm": True,
    "ssm_cfg": {},
    "state_size": 16,
    "time_step_floor": 0.0001,
    "time_step_init_scheme": "random",
    "time_step_max": 0.1,
    "time_step_min": 0.001,
    "time_step_rank": 48,
    "time_step_scale": 1.0,
    "use_bias": False,
    "use_cache": True,
    "use_conv_bias": True,
    "vocab_size": 50280,
}
NARROW = {"d_inner": 64, "d_model": 32, "hidden_size": 32, "intermediate_size": 64, "time_step_rank": 2}
SHALLOW = {"n_layer": 2, "num_hidden_layers": 2}


ROUNDED = {"transforms": ["sparsity", "quantization"], "quantization": {"precision": "int8_weights", "group": 16}}


@pytest.mark.parametrize(("further", "grouped"), [({}, 0), (ROUNDED, 2 * 3 + 1)], ids=["pruned", "pruned and rounded"])
@pytest.mark.usefixtures("unsettled")
def test_a_folder_like_mamba_130m_hf_goes_through(tmp_path, further, grouped):
    """Written by save_pretrained with the hub's config, narrower and with two layers, and random weights."""
    torch.manual_seed(0)
    model = transformers.MambaForCausalLM(transformers.MambaConfig(**CONFIG_130M | NARROW | SHALLOW)).eval()
    model.save_pretrained(tmp_path)
    load_tokenizer(resolve_checkpoint(None, family="mamba")).save_pretrained(tmp_path)
    loaded, tokenizer = load_model(resolve_checkpoint(str(tmp_path), family="mamba"))
    assert isinstance(loaded.backbone.layers[0].mixer, FastMambaMixer)
    inputs = {"input_ids": tokens(2, 12), "use_cache": False}
    with torch.no_grad():
        assert torch.allclose(loaded(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)
    text = [{"input_ids": tokens(4, 16, seed), "use_cache": False} for seed in range(2)]
    settings = {"axes": ("inner", "state"), "rate": 0.2, "distill_steps": 2}
    found = icd.optimize(loaded, text, quality=lambda model: 50.0, **settings, **further)
    assert len(grouped_modules(found.model)) == grouped
    assert [entry["accepted"] for entry in found.report["attempts"]] == [True]
    assert found.model.backbone.layers[0].mixer.out_proj.in_features <= 64
    found.save_pretrained(tmp_path / "smaller", tokenizer)
    with torch.no_grad():
        assert torch.equal(icd.load_optimized(tmp_path / "smaller")(**inputs).logits, found.model(**inputs).logits)
