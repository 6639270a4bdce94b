import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import MambaConfig, MambaForCausalLM

from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.models.checkpoint.files import check_config
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.room import count_parameters
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.families.mamba.original import load_original, read_config

CONFIG = {
    "d_model": 16,
    "n_layer": 2,
    "vocab_size": 29,
    "ssm_cfg": {"d_state": 4, "dt_rank": 3},
    "rms_norm": True,
    "residual_in_fp32": True,
    "fused_add_norm": True,
    "pad_vocab_size_multiple": 8,
}


def stock_model(tied=True):
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 3}
    return MambaForCausalLM(MambaConfig(**sizes, tie_word_embeddings=tied)).eval()


def original_state(model):
    """What mamba_ssm's save_pretrained would hold: its name of the embedding, and the tied head written out."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["backbone.embedding.weight"] = state.pop("backbone.embeddings.weight")
    return state


def write(folder, state, config=CONFIG, safetensors=False):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if safetensors:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("safetensors", [False, True])
@pytest.mark.parametrize("tied", [True, False])
def test_the_loaded_model_is_the_one_that_was_written(tmp_path, safetensors, tied):
    model = stock_model(tied)
    folder = write(tmp_path / "m", original_state(model), CONFIG | {"tie_embeddings": tied}, safetensors)
    loaded = load_original(folder)
    assert list(loaded.state_dict()) == list(model.state_dict())
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert (loaded.lm_head.weight is loaded.backbone.embeddings.weight) == tied
    ids = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_a_head_that_is_tied_need_not_be_in_the_file(tmp_path):
    state = original_state(stock_model())
    del state["lm_head.weight"]
    loaded = load_original(write(tmp_path / "m", state), torch.bfloat16)
    assert loaded.lm_head.weight is loaded.backbone.embeddings.weight
    assert loaded.dtype == torch.bfloat16


def test_the_resolution_order_takes_it_for_the_family_mamba(tmp_path):
    folder = write(tmp_path / "m", original_state(stock_model()))
    checkpoint = resolve_checkpoint(str(folder), family="mamba")
    assert (checkpoint.source, checkpoint.weights, len(checkpoint.sha256)) == ("path", "trained", 64)
    assert count_parameters(checkpoint) == sum(p.numel() for p in stock_model().backbone.parameters())
    with pytest.raises(ResourceError, match="has no tokenizer"):
        load_model(checkpoint)
    with pytest.raises(ConfigError, match="family 'bert' takes"):
        resolve_checkpoint(str(folder), family="bert")


def test_sizes_come_from_ssm_cfg(tmp_path):
    ssm = {"d_state": 8, "d_conv": 3, "expand": 3, "bias": True, "conv_bias": False, "dt_min": 0.01}
    folder = write(tmp_path / "m", {}, CONFIG | {"ssm_cfg": ssm, "pad_vocab_size_multiple": 10})
    config = read_config(folder)
    assert (config.vocab_size, config.state_size, config.conv_kernel, config.intermediate_size) == (30, 8, 3, 48)
    assert (config.use_bias, config.use_conv_bias, config.time_step_rank) == (True, False, 1)


@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        ("backbone.layers.1.mixer.A_log", r"1 weights missing \['backbone.layers.1.mixer.A_log'\]"),
        ("backbone.embedding.weight", r"weights missing \['backbone.embeddings.weight'\]"),
    ],
)
def test_half_loaded_weights_are_refused(tmp_path, lost, complaint):
    state = original_state(stock_model())
    del state[lost]
    with pytest.raises(ArtifactError, match=complaint):
        load_original(write(tmp_path / "m", state))


def test_unknown_misshapen_and_broken_weights_are_refused(tmp_path):
    state = original_state(stock_model())
    with pytest.raises(ArtifactError, match=r"1 unknown \['backbone.layers.2.norm.weight'\]"):
        load_original(write(tmp_path / "a", state | {"backbone.layers.2.norm.weight": torch.ones(16)}))
    with pytest.raises(ArtifactError, match=r"'backbone.norm_f.weight' of b has shape \(15,\).*\(16,\)"):
        load_original(write(tmp_path / "b", state | {"backbone.norm_f.weight": torch.ones(15)}))
    with pytest.raises(ArtifactError, match="'backbone.norm_f.weight'.*NaN"):
        load_original(write(tmp_path / "c", state | {"backbone.norm_f.weight": torch.full((16,), float("nan"))}))
    with pytest.raises(ArtifactError, match="no state_dict of tensors"):
        load_original(write(tmp_path / "d", {"epoch": 3}))
    folder = write(tmp_path / "e", state)
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtifactError, match="damaged"):
        resolve_checkpoint(str(folder), family="mamba")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ResourceError, match="neither model.safetensors nor pytorch_model.bin"):
        resolve_checkpoint(str(folder), family="mamba")


class Payload:
    """A pickle that would run code when it is read without care."""

    def __reduce__(self):
        return (print, ("executed",))


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, capsys):
    folder = write(tmp_path / "m", original_state(stock_model()) | {"backbone.norm_f.weight": Payload()})
    with pytest.raises(ArtifactError, match="more than tensors"):
        load_original(folder)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ssm_cfg": {"layer": "Mamba2"}}, "this is a Mamba2 checkpoint"),
        ({"attn_layer_idx": [1]}, "a hybrid"),
        ({"d_intermediate": 64}, "a hybrid"),
        ({"rms_norm": False}, "rms_norm false"),
        ({"ssm_cfg": {"headdim": 64}}, "ssm_cfg has 'headdim'"),
    ],
)
def test_other_architectures_are_refused_before_any_weight_is_read(tmp_path, change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        check_config(write(tmp_path / "m", {}, CONFIG | change), "mamba")


def test_a_mamba2_checkpoint_of_transformers_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"model_type 'mamba2' \(Mamba-2: .*\); family 'mamba' takes \['mamba'\]"):
        check_config(write(tmp_path / "m", {}, {"model_type": "mamba2"}), "mamba")
