"""Training is a function of the seed, in one go or in slices; what it writes loads, and the card tells the truth."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from icd_lib.data.language import LanguageData, load_language_data
from icd_lib.errors import ArtifactError, ConfigError, ResourceError
from icd_lib.measure.quality_lm import judge_blocks
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.families import mamba

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import train_mamba
from train_mamba import (
    Recipe,
    batch_at,
    build_model,
    build_optimizer,
    finish,
    learning_rate,
    loss_of,
    train,
    train_step,
    train_tokenizer,
)

TINY = Recipe(
    vocab_size=300,
    hidden_size=16,
    layers=2,
    state_size=4,
    length=16,
    batch=4,
    steps=12,
    warmup=3,
    horizon=24,
    decay_from=8,
    threads=1,
    log_every=4,
    judge_every=6,
    judge_blocks=4,
)


@pytest.fixture(scope="module")
def data():
    """A few chapters of the corpus."""
    whole = load_language_data()
    rows = {split: whole.splits[split][:6] for split in ("train", "validation", "test", "calibration")}
    order = np.concatenate(list(rows.values()))
    splits = {split: np.arange(6) + 6 * i for i, split in enumerate(rows)}
    texts = [whole.documents[i] for i in order]
    return LanguageData("few", texts, whole.clusters[order], splits, whole.provenance)


@pytest.fixture(scope="module")
def tokenizer(data):
    return train_tokenizer(data.texts("train"), TINY.vocab_size)


def quiet(line):
    pass


def test_the_tokenizer_encodes_every_text_and_survives_the_disk(tokenizer, data, tmp_path):
    again = train_tokenizer(data.texts("train"), TINY.vocab_size)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    tokenizer.save_pretrained(tmp_path)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in ("In the beginning", "naïve 漢字 \n\t😀", data.texts("test")[0]):
        ids = read(text)["input_ids"]
        assert read.decode(ids) == text and ids == tokenizer(text)["input_ids"]
    assert len(read) == 300 and read.eos_token_id == 0 and read("")["input_ids"] == []


def test_every_epoch_reads_the_text_once_and_cuts_it_elsewhere():
    stream = np.arange(1000)
    per_epoch = (1000 - 16) // 16 // 4
    firsts = []
    for epoch in range(3):
        rows = torch.cat([batch_at(stream, epoch * per_epoch + i, TINY) for i in range(per_epoch)])
        assert rows.shape == (4 * per_epoch, 17)
        assert (rows[:, 1:] - rows[:, :-1] == 1).all(), "consecutive tokens, the last one a target only"
        starts = rows[:, 0].tolist()
        assert len({start % 16 for start in starts}) == 1 and len(set(starts)) == len(starts)
        assert starts != sorted(starts)
        firsts.append(starts[0])
    assert len(set(firsts)) == 3
    assert torch.equal(batch_at(stream, 7, TINY), batch_at(stream, 7, TINY))
    assert not torch.equal(batch_at(stream, 7, TINY), batch_at(stream, 7, dataclasses.replace(TINY, seed=1)))
    with pytest.raises(ArtifactError, match="the text has 60 tokens"):
        batch_at(np.arange(60), 0, TINY)


def test_the_learning_rate_warms_up_and_comes_down():
    rates = [learning_rate(step, TINY) for step in range(TINY.steps + 1)]
    assert rates[2] == TINY.learning_rate and rates[0] == pytest.approx(TINY.learning_rate / 3)
    assert rates[-1] == pytest.approx(TINY.final_rate * TINY.learning_rate)
    assert all(a > b for a, b in zip(rates[3:], rates[4:], strict=False))
    assert np.allclose(np.diff(rates[TINY.decay_from :], n=2), 0), "straight at the end"
    longer = dataclasses.replace(TINY, steps=24, decay_from=23)
    assert [learning_rate(step, longer) for step in range(9)] == rates[:9], "the cosine does not know when it is left"


def test_only_matrices_decay():
    model = build_model(TINY)
    decaying, kept = (group["params"] for group in build_optimizer(model, TINY).param_groups)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].split(".", 3)[-1] for p in decaying} == {
        f"mixer.{name}.weight" for name in ("in_proj", "x_proj", "dt_proj", "out_proj")
    }
    assert len(decaying) + len(kept) == len(names)


def test_a_step_moves_every_weight_and_lowers_the_loss():
    model = build_model(TINY)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens = batch_at(np.random.default_rng(0).integers(0, 300, 400), 0, TINY)
    optimizer = build_optimizer(model, TINY)
    losses = [train_step(model, optimizer, tokens, 2, TINY) for _ in range(4)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert losses[0] == pytest.approx(float(loss_of(build_model(TINY), tokens).detach()))


def test_a_loss_that_is_not_finite_stops_the_training():
    model = build_model(TINY)
    with torch.no_grad():
        model.backbone.norm_f.weight.fill_(float("nan"))
    with pytest.raises(ArtifactError, match="loss of step 5 is nan"):
        train_step(model, build_optimizer(model, TINY), torch.zeros(2, 17, dtype=torch.int64), 5, TINY)


def test_slices_give_the_same_weights_and_curve_as_one_go(data, tokenizer, tmp_path, monkeypatch):
    whole, log = train(TINY, data, tokenizer, tmp_path / "whole", report=quiet)
    assert log["step"] == TINY.steps and [step for step, _ in log["loss"]] == [4, 8, 12]
    assert [entry[0] for entry in log["validation"]] == [6, 12]
    clock = iter(range(10_000))
    monkeypatch.setattr(train_mamba.time, "perf_counter", lambda: next(clock))  # a second per look: few steps a slice
    slices = 0
    while True:
        sliced, story = train(TINY, data, tokenizer, tmp_path / "sliced", seconds=6, report=quiet)
        slices += 1
        if story["step"] == TINY.steps:
            break
    assert slices > 2
    assert story["loss"] == log["loss"] and story["validation"] == log["validation"]
    for a, b in zip(whole.parameters(), sliced.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ArtifactError, match="another recipe"):
        train(dataclasses.replace(TINY, seed=1), data, tokenizer, tmp_path / "whole", report=quiet)


def test_what_is_written_loads_and_the_card_says_what_was_measured(data, tokenizer, tmp_path):
    recipe = dataclasses.replace(TINY, steps=6, decay_from=4)
    model, log = train(recipe, data, tokenizer, tmp_path / "work", report=quiet)
    folder = tmp_path / "model"
    (folder / "old").mkdir(parents=True)
    facts = finish(model, tokenizer, data, recipe, log, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "work"] and not (folder / "old").exists()
    found = resolve_checkpoint(str(folder), family="mamba")
    assert (found.sha256, found.licence) == (facts["card"]["sha256"], facts["card"]["licence"])
    loaded, info = transformers.MambaForCausalLM.from_pretrained(
        folder, output_loading_info=True, local_files_only=True
    )
    assert not info["missing_keys"] and loaded.dtype == torch.float32
    for name, p in model.named_parameters():
        stored = load_file(folder / "model.safetensors")[name]
        assert stored.dtype == (torch.float32 if p.dim() < 2 or name.endswith("A_log") else torch.bfloat16)
        assert torch.equal(loaded.get_parameter(name), p.detach().to(stored.dtype).float())
    assert json.loads((folder / "training.json").read_text()) == json.loads(json.dumps(facts))
    card = (folder / "README.md").read_text()
    result = judge_blocks(loaded.eval(), data.blocks(tokenizer, "test", recipe.length))
    assert f"| mamba-verse | {result.perplexity:.2f} (" in card and f"| {result.quality_pct:.2f} ±" in card
    assert f"| 6 | {log['loss'][-1][1]:.3f} | {log['validation'][-1][1]:.3f} |" in card


def test_the_embedded_checkpoint_is_the_familys_last_resort(tmp_path, monkeypatch):
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_CACHE", "ICD_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(mamba, "EMBEDDED", tmp_path / "embedded")
    with pytest.raises(ResourceError, match="mamba-verse.*train_mamba.py"):
        resolve_checkpoint(family="mamba")
    build_model(TINY).save_pretrained(tmp_path / "embedded")
    found = resolve_checkpoint(family="mamba")
    assert (found.source, found.name, found.family) == ("embedded", "mamba-verse", "mamba")
    assert resolve_checkpoint("mamba-verse", family="mamba") == found
    build_model(dataclasses.replace(TINY, seed=1)).save_pretrained(tmp_path / "data" / "mamba-verse")
    monkeypatch.setenv("ICD_DATA_DIR", str(tmp_path / "data"))
    local = resolve_checkpoint("mamba-verse", family="mamba")
    assert local.source == "icd_data_dir" and local.sha256 != found.sha256
    assert resolve_checkpoint(family="mamba") == found, "no choice needs no search"
    with pytest.raises(ResourceError, match="'state-spaces/mamba-130m-hf' was not found"):
        resolve_checkpoint("state-spaces/mamba-130m-hf", family="mamba")
    with pytest.raises(ConfigError, match="model_type 'mamba'"):
        resolve_checkpoint(str(tmp_path / "embedded"))


@pytest.mark.skipif(not (mamba.EMBEDDED / "training.json").is_file(), reason="the checkpoint is not trained yet")
def test_the_embedded_checkpoint_is_what_its_card_says():
    found = resolve_checkpoint(family="mamba")
    facts = json.loads((found.path / "training.json").read_text())
    assert (found.source, found.name, found.weights) == ("embedded", "mamba-verse", "trained")
    assert found.sha256 == facts["card"]["sha256"] and found.sha256 in (found.path / "README.md").read_text()
    assert (found.path / "model.safetensors").stat().st_size <= 8_000_000
    data = load_language_data()
    assert facts["card"]["data_sha256"] == data.sha256, "the split changed: the checkpoint has seen held-out text"
    model = transformers.AutoModelForCausalLM.from_pretrained(found.path, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(found.path, local_files_only=True)
    blocks = data.blocks(tokenizer, "validation", 64).spread(24)
    quality = facts["quality"]
    assert judge_blocks(model, blocks).perplexity < quality["trigrams"]["validation"]["perplexity"]
    assert quality["mamba-verse"]["test"]["pct"] > quality["trigrams"]["test"]["pct"]
