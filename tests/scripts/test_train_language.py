"""What is written loads, and the card tells the truth."""

import dataclasses
import json

import pytest
import torch
import train_language
import transformers
from language_training import train
from safetensors.torch import load_file
from train_language import finish, main

from icd_lib.data.language import CHAPTERS
from icd_lib.measure.quality_lm import judge_blocks
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint


def quiet(line):
    pass


def test_what_is_written_loads_and_the_card_says_what_was_measured(recipe, text, tokenizer, tmp_path):
    model, log = train(recipe, text, tokenizer, tmp_path / "work", report=quiet)
    folder = tmp_path / "model"
    (folder / "old").mkdir(parents=True)
    facts = finish(model, tokenizer, text, recipe, log, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "work"] and not (folder / "old").exists()
    found = resolve_checkpoint(str(folder), family=facts["card"]["model_type"])
    assert (found.sha256, found.licence) == (facts["card"]["sha256"], facts["card"]["licence"])
    loaded = load_model(found)[0]
    stored = load_file(folder / "model.safetensors")
    for name, p in model.named_parameters():
        assert stored[name].dtype == (torch.float32 if recipe.stays_float32(name, p) else torch.bfloat16)
        assert torch.equal(loaded.get_parameter(name), p.detach().to(stored[name].dtype).float())
    assert {name.rpartition(".")[2] for name in stored if stored[name].dtype == torch.bfloat16} == {"weight"}
    assert json.loads((folder / "training.json").read_text()) == json.loads(json.dumps(facts))
    card = (folder / "README.md").read_text()
    for group, domain in (("seen", "news"), ("seen", CHAPTERS), ("unread", "glosses")):
        data = getattr(text, group)[domain]
        blocks = data.blocks(tokenizer, "test", recipe.length).spread(recipe.final_blocks)
        result = judge_blocks(loaded, blocks)
        row = f"| {domain} | {result.n_items:,} | {result.perplexity:.2f} ("
        assert row in card and f"| {result.quality_pct:.2f} ±" in card
    step, loss, pct, _ = log["validation"][-1]
    assert f"| {step} | {log['loss'][-1][1]:.3f} | {loss:.3f} | {pct:.2f} |" in card
    domain = facts["domains"]["news"]
    assert f"| news | {domain['tokens']:,} | {domain['read']:,} | {domain['passes']:.1f} | 24, 6, 10 | toy |" in card
    assert "the other parts of the chapters, and glosses and manual. Which" in " ".join(card.split())
    assert sum(entry["read"] for entry in facts["domains"].values()) == recipe.steps * recipe.batch * recipe.length
    assert set(facts["quality"]) == {recipe.name, "trigrams", "bigrams", "unigrams"}


def test_the_command_trains_in_slices_and_writes_where_it_is_told(recipe, text, tmp_path, monkeypatch, capsys):
    kind = recipe.name.partition("-")[0]
    monkeypatch.setitem(train_language.RECIPES, kind, dataclasses.replace(recipe, seed=5))
    monkeypatch.setattr(train_language, "load_text", lambda held_out: text)
    words = ["--model", kind, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    assert main([*words, "--slice-minutes", "0"]) == 1
    assert "0 of 12 steps are done" in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert main(words) == 0
    assert f"# {recipe.name}" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out" / "training.json").read_text())
    assert facts["card"]["recipe"]["seed"] == 0, "the command's seed counts"
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)) == 300
    with pytest.raises(SystemExit):
        main(["--model", "gpt"])
