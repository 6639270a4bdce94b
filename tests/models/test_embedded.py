"""The checkpoints that come along are found by their names, and are what their cards say."""

import json

import numpy as np
import pytest
import torch
import transformers

from icd_lib.data.language import load_language_data
from icd_lib.errors import ConfigError, ResourceError
from icd_lib.measure.quality_lm import judge_blocks
from icd_lib.models import family as rows
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.families import FAMILIES
from icd_lib.models.family import PACKAGED
from tests.tiny_decoders import tiny_decoder

OURS = {
    known.name: name
    for name in FAMILIES.own
    for known in FAMILIES[name].embedded
    if "/" not in known.name  # the others are somebody else's, of packages
}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "ICD_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def tiny_mamba(seed=0):
    torch.manual_seed(seed)
    config = transformers.MambaConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, state_size=4)
    return transformers.MambaForCausalLM(config)


def test_the_default_is_the_familys_last_resort(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "PACKAGED", tmp_path / "embedded")
    with pytest.raises(ResourceError, match="mamba-worlds.*it is not installed; run: python scripts/train_language.py"):
        resolve_checkpoint(family="mamba")
    tiny_mamba().save_pretrained(tmp_path / "embedded" / "mamba-worlds")
    found = resolve_checkpoint(family="mamba")
    assert (found.source, found.name, found.family) == ("embedded", "mamba-worlds", "mamba")
    assert resolve_checkpoint("mamba-worlds", family="mamba") == found
    tiny_mamba(seed=1).save_pretrained(tmp_path / "data" / "mamba-worlds")
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "data"))
    local = resolve_checkpoint("mamba-worlds", family="mamba")
    assert local.source == "icd_data_dir" and local.sha256 != found.sha256
    assert resolve_checkpoint(family="mamba") == found, "no choice needs no search"
    with pytest.raises(ResourceError, match="'state-spaces/mamba-130m-hf' was not found"):
        resolve_checkpoint("state-spaces/mamba-130m-hf", family="mamba")
    with pytest.raises(ConfigError, match="model_type 'mamba'"):
        resolve_checkpoint(str(tmp_path / "embedded" / "mamba-worlds"))


def test_another_one_is_found_by_its_name_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "PACKAGED", tmp_path)
    with pytest.raises(ResourceError, match="llama-worlds.*it is not installed; run: python scripts/train_language.py"):
        resolve_checkpoint("llama-worlds", family="llama")
    tiny_decoder().save_pretrained(tmp_path / "llama-worlds")
    found = resolve_checkpoint("Llama-Worlds", family="llama")
    assert (found.source, found.name, found.path) == ("embedded", "llama-worlds", tmp_path / "llama-worlds")
    with pytest.raises(ResourceError, match="'llama-worlds' was not found"):
        resolve_checkpoint("llama-worlds", family="mamba")


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_checkpoint_is_what_its_card_says(name):
    if not (PACKAGED / name / "training.json").is_file():
        pytest.skip(f"{name} is not trained yet")
    found = resolve_checkpoint(name, family=OURS[name])
    facts = json.loads((found.path / "training.json").read_text())
    assert (found.source, found.name, found.weights) == ("embedded", name, "trained")
    assert found.sha256 == facts["card"]["sha256"] and found.sha256 in (found.path / "README.md").read_text()
    assert found.licence == facts["card"]["licence"]
    assert (found.path / "model.safetensors").stat().st_size <= 8_100_000
    model, tokenizer = load_model(found)
    assert model.num_parameters() == facts["card"]["parameters"]
    blocks = load_language_data().blocks(tokenizer, "validation", 64).spread(24)
    perplexity = judge_blocks(model, blocks).perplexity
    quality = facts["quality"]
    told = quality[name]["seen"]["verses"]["perplexity"]
    assert told < perplexity < 1.5 * told, "blocks of 64 tokens have less to go by than the card's"
    for group in ("seen", "unread"):
        logs = {who: np.log([d["perplexity"] for d in quality[who][group].values()]) for who in (name, "trigrams")}
        assert logs[name].mean() < logs["trigrams"].mean()
    assert set(quality[name]["unread"]) >= {"products", "editorials", "glosses"}
    for group in ("seen", "unread"):
        for domain, figures in quality[name][group].items():
            assert figures["pct"] > quality["unigrams"][group][domain]["pct"]
    assert all(entry.get("passes", 0) <= 8.1 for entry in facts["domains"].values())
