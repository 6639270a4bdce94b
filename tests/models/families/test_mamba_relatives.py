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
from tests.tiny_mambas import CONFIG_130M, NARROW, SHALLOW, tiny_mamba, tiny_mamba2, tokens

HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32}
MAMBA2 = {"mamba_n_heads": 2, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}
TWO, FOUR = {"num_hidden_layers": 2}, {"num_hidden_layers": 4}
KINDS = {"layers_block_type": ["mamba", "attention"], "head_dim": 8}
GRANITE = {"layer_types": ["mamba", "attention"], "num_local_experts": 2, "num_experts_per_tok": 1}
GRANITE |= {"shared_intermediate_size": 16}
ZAMBA2 = {"mamba_ngroups": 1, "n_mamba_heads": 2, "mamba_d_state": 8, "mamba_headdim": 16, "chunk_size": 8}
ZAMBA2 |= {"layers_block_type": ["mamba", "hybrid"] * 2, "num_mem_blocks": 1}
SSM = {"mamba_num_heads": 2, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8}
RELATIVES = {  # a layer of Mamba, then one of attention
    "FalconMamba": TWO | {"state_size": 4, "time_step_rank": 3},
    "Jamba": TWO | HEADS | {"num_experts": 1, "attn_layer_period": 2, "attn_layer_offset": 1},
    "Zamba": FOUR | HEADS | {"layers_block_type": ["mamba", "hybrid"] * 2},  # it shares its attention
    "Bamba": TWO | HEADS | MAMBA2 | {"attn_layer_indices": [1]},
    "NemotronH": HEADS | KINDS | SSM,
    "FalconH1": TWO | HEADS | MAMBA2 | {"mamba_d_ssm": 32, "head_dim": 8},  # both in every layer
    "GraniteMoeHybrid": TWO | HEADS | MAMBA2 | GRANITE,
    "Zamba2": FOUR | HEADS | ZAMBA2,
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


def test_every_relative_is_here_but_mamba2_whose_axes_are_known():
    built = {getattr(transformers, f"{name}Config").model_type for name in RELATIVES}
    assert built == set(FAMILIES["mamba"].refused) - {"mamba2"}


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
