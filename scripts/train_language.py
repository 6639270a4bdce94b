"""Train an embedded language model, a small Llama or Mamba, on the text of several worlds.

    python scripts/train_language.py --model llama                       # trains, judges, writes checkpoint and card
    python scripts/train_language.py --model mamba --slice-minutes 10    # stops after ten minutes; again: it goes on

Text, tokenizer, order of the blocks and weights are functions of the recipe: on one machine, with one number of threads
and one version of the kernels and of the packages whose text is read, a seed gives one loss curve, in one go or in
slices.
"""

import argparse
import hashlib
import json
import math
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from language_card import write_card
from language_recipes import RECIPES, Recipe
from language_text import Text, load_text, mix, streams_of, tokenizer_texts, train_tokenizer
from language_training import train
from safetensors.torch import load_file, save_file
from torch import nn

from icd_lib.data.language import Blocks, LanguageData
from icd_lib.data.language_ngram import NGram
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.quality_lm import LanguageResult, judge_blocks, summarise_result
from icd_lib.models.checkpoint.files import hash_files
from icd_lib.models.family import PACKAGED

LICENCE = "cc-by-sa-3.0"  # that of the text with the most conditions
NGRAMS = {"trigrams": 3, "bigrams": 2, "unigrams": 1}


def write_checkpoint(model: nn.Module, tokenizer, recipe: Recipe, folder: Path) -> None:
    """config.json, tokenizer and model.safetensors: bfloat16, but for what the recipe keeps in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    config.architectures, config.dtype = [type(model).__name__], torch.float32
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {
        name: p.detach().to(torch.float32 if recipe.stays_float32(name, p) else torch.bfloat16).contiguous()
        for name, p in model.named_parameters()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def judge(folder: Path, text: Text, recipe: Recipe) -> dict:
    """Quality of the checkpoint as it loads, and of n-grams of what it read: model → group → domain → figures."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    recipe.quicken(model.eval())
    blocks = {
        group: {
            name: data.blocks(tokenizer, "test", recipe.length).spread(recipe.final_blocks)
            for name, data in found.items()
        }
        for group, found in (("seen", text.seen), ("unread", text.unread))
    }
    read = np.concatenate(list(streams_of(text, tokenizer).values()))
    found = {recipe.name: _of_all(blocks, lambda judged: judge_blocks(model, judged))}
    for name, order in NGRAMS.items():
        counted = NGram(read, recipe.vocab_size, order)
        found[name] = _of_all(
            blocks,
            lambda judged, counted=counted: LanguageResult(*counted.score(judged.ids), judged.cluster[:, 1:]),
        )
    return found


def _of_all(blocks: dict[str, dict[str, Blocks]], result_of) -> dict:
    return {
        group: {name: summarise_result(result_of(judged)) for name, judged in domains.items()}
        for group, domains in blocks.items()
    }


def describe(folder: Path, text: Text, tokenizer, recipe: Recipe, model: nn.Module, log: dict) -> dict:
    """What training.json and the card say."""
    weights, machine = folder / "model.safetensors", fingerprint()
    sizes = {name: len(stream) for name, stream in streams_of(text, tokenizer).items()}
    read = {name: count * recipe.length for name, count in mix(sizes, recipe).items()}
    card = {
        "recipe": asdict(recipe),
        "words": recipe.words(model),
        "model_type": model.config.model_type,
        "licence": LICENCE,
        "parameters": sum(x.numel() for x in load_file(weights).values()),
        "text_sha256": text_sha256(text),
        "minutes": log["seconds"] / 60,
        "processor": machine["cpu"]["model"],
        "torch": machine["packages"]["torch"],
        "transformers": machine["packages"]["transformers"],
        "bytes": weights.stat().st_size,
        "sha256": hash_files([weights]),
    }
    domains = {
        name: {
            "tokens": sizes[name],
            "read": read[name],
            "passes": read[name] / sizes[name],
            "documents": {split: len(rows) for split, rows in data.splits.items()},
            **source_of(data),
        }
        for name, data in text.seen.items()
    } | {name: {"tokens": 0, "read": 0, **source_of(data)} for name, data in text.unread.items()}
    quality = judge(folder, text, recipe)
    return {
        "card": card,
        "domains": domains,
        "quality": quality,
        "loss": log["loss"],
        "validation": log["validation"],
    }


def text_sha256(text: Text) -> str:
    """Identity of the documents that are read, and of their order."""
    return hashlib.sha256("\0".join(text.train_texts()).encode()).hexdigest()


def source_of(data: LanguageData) -> dict:
    """Packages with their versions, and licence, of a domain's text."""
    given = data.provenance
    return {
        "packages": given.get("packages") or {given["package"]: given.get("version", "")},
        "licence": given.get("licence", "not stated"),
    }


def finish(model: nn.Module, tokenizer, text: Text, recipe: Recipe, log: dict, folder: Path) -> dict:
    """Write the checkpoint, judge what was written, write training.json and the card; nothing is left half-written."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_checkpoint(model, tokenizer, recipe, partial)
    facts = describe(partial, text, tokenizer, recipe, model, log)
    (partial / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    write_card(partial, facts)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return facts


def main(arguments: list[str] | None = None) -> int:
    """Train, and when all steps are done write the checkpoint; 0 when it is written, 1 when there is more to train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(RECIPES), required=True, help="which recipe")
    parser.add_argument(
        "--out", type=Path, help="checkpoint folder, replaced when all is done (default: the embedded one)"
    )
    parser.add_argument("--work", type=Path, help="where unfinished training lies (default: build/NAME)")
    parser.add_argument("--slice-minutes", type=float, default=math.inf, help="stop after so many minutes")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args(arguments)
    recipe = replace(RECIPES[options.model], seed=options.seed)
    folder, work = options.out or PACKAGED / recipe.name, options.work or Path("build") / recipe.name
    text = load_text(recipe.held_out)
    tokenizer = train_tokenizer(tokenizer_texts(text, recipe.verses), recipe.vocab_size)
    model, log = train(recipe, text, tokenizer, work, seconds=60 * options.slice_minutes)
    if log["step"] < recipe.steps:
        print(f"{log['step']} of {recipe.steps} steps are done; run the same command again to go on")
        return 1
    finish(model, tokenizer, text, recipe, log, folder)
    print((folder / "README.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
