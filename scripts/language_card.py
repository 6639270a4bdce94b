"""The model card of an embedded language model, written from the facts of its training and from nothing else."""

import math
from pathlib import Path

_CARD = """---
license: {licence}
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [{model_type}, causal-lm, small]
---
# {name}

A {words} of {parameters:,} parameters with a vocabulary of {vocab_size:,}, trained from scratch by this project on the
text of {worlds} domains. It exists so that pruning, permuting, rounding and measuring a *trained* model needs no
network. It is no useful writer. Its weights were never on a grid coarser than bfloat16, so that orders of rounding can
be judged on it.

## Data

| domain | train tokens | read | passes | documents: train, validation, test | from | licence |
|---|---:|---:|---:|---:|---|---|
{data}

Documents are what the scenarios `smollm2` and `mamba` calibrate on, less {held_out:.0%} of each domain that is
validation text here, and the train part of the Bible's chapters. Never read, by model or tokenizer: the held-out
documents of these domains that the scenarios judge as *seen*, the other parts of the chapters, and {unread}.
Which documents are held out follows from `data.split_seed: 0` and from the texts; other versions of the packages above,
or another seed, deal others.

Before you choose strengths with it in `smollm2`: that scenario's selection domain `verses` is for two thirds text that
was read here. With `data.selection: [manual]` nothing that chooses was. `mamba` chooses on domains that were not read.

sha256 of what was read: `{text_sha256}`. The checkpoint carries the licence of the text with the most conditions.

## Training

{steps:,} steps of {batch} × {length} tokens ({seen_tokens:,} in all, of {train_tokens:,} distinct); domains in
proportion to size^{exponent:g}, none read more than {most_passes:g} times, chapters {verses:.0%}; byte-level BPE,
trained on the text above with as many chapters as their share. AdamW, betas {betas}, weight decay {weight_decay:g}
on matrices; learning rate {learning_rate:g} with a warm-up of {warmup} steps, a cosine over {horizon:,} steps that
is left at step {decay_from:,}, and a straight line from there to {final_rate:.0%} of the peak; dropout {dropout:g}
of embeddings and of what is projected back into the residual stream; gradients clipped at {clip:g}; {products};
seed {seed}. {minutes:.1f} minutes of wall time on {threads} threads ({processor}; torch {torch}, transformers
{transformers}).

To train it again: `python scripts/train_language.py --model {model_type}`. On one machine, with one number of
threads and one version of this package, the same seed gives the same loss curve; other kernels sum in another order
and follow it up to rounding.

| step | train loss | validation loss | validation accuracy, % |
|---:|---:|---:|---:|
{curve}

Losses are in nats per token: train is the mean over the {log_every} steps before, with dropout and in the mixture's
proportions; validation the mean over the domains that are read, each weighing the same, on at most {judge_blocks}
blocks of each. `training.json` has the whole curve, and that of every domain.

## Quality

Every token but the first of each block of {length} tokens, at most {final_blocks} evenly spaced blocks of each domain;
± is a standard error, the brackets are 95 % intervals, both clustered by document.

| domain | tokens judged | perplexity | next-token accuracy, % | of trigrams: perplexity | accuracy, % |
|---|---:|---:|---:|---:|---:|
{quality}

Means over domains are geometric for perplexity. The n-grams are interpolated with Witten-Bell weights and counted
on what was read, in the same tokens, each document once; bigrams and unigrams are in `training.json`. Nothing was
chosen on these texts.

## Files

`model.safetensors`: {bytes:,} bytes, sha256 `{sha256}`.
Matrices are rounded to bfloat16, {kept} float32. It loads in float32, and the figures above are of the rounded weights.
"""
GROUPS = {"seen": "read: held-out documents", "unread": "of no such text was any read"}
_KEPT = {"mamba": "vectors and `A_log` are"}


def write_card(folder: Path, facts: dict) -> Path:
    """Write README.md; `facts` is what training.json holds."""
    card, recipe, domains = facts["card"], facts["card"]["recipe"], facts["domains"]
    validation = {step: (loss, pct) for step, loss, pct, _ in facts["validation"]}
    curve = [
        f"| {step:,} | {loss:.3f} | {validation[step][0]:.3f} | {validation[step][1]:.2f} |"
        for step, loss in facts["loss"]
        if step in validation
    ]
    read = {name: entry for name, entry in domains.items() if entry["read"]}
    unread = sorted(set(domains) - set(read))
    text = _CARD.format(
        **recipe,
        **{key: value for key, value in card.items() if key != "recipe"},
        worlds=len(read),
        data="\n".join(_data_row(name, entry) for name, entry in read.items()),
        unread=" and ".join([", ".join(unread[:-1]), unread[-1]]) if len(unread) > 1 else "".join(unread),
        seen_tokens=recipe["steps"] * recipe["batch"] * recipe["length"],
        train_tokens=sum(entry["tokens"] for entry in read.values()),
        products="products in bfloat16 (autocast), weights in float32" if recipe["bf16"] else "float32",
        curve="\n".join(curve),
        quality="\n".join(_quality_rows(facts["quality"], recipe["name"])),
        kept=_KEPT.get(card["model_type"], "vectors are"),
    )
    path = Path(folder) / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def _data_row(name: str, entry: dict) -> str:
    counts = ", ".join(f"{entry['documents'][split]:,}" for split in ("train", "validation", "test"))
    packages = ", ".join(f"{package} {version}".strip() for package, version in entry["packages"].items())
    return (
        f"| {name} | {entry['tokens']:,} | {entry['read']:,} | {entry['passes']:.1f} | {counts} | {packages} | "
        f"{entry['licence']} |"
    )


def _quality_rows(quality: dict, name: str) -> list[str]:
    rows = []
    for group, words in GROUPS.items():
        rows.append(f"| **{words}** | | | | | |")
        for domain, found in quality[name][group].items():
            low, high = found["perplexity_ci95"]
            other = quality["trigrams"][group][domain]
            rows.append(
                f"| {domain} | {found['n_items']:,} | {found['perplexity']:.2f} ({low:.2f} to {high:.2f}) | "
                f"{found['pct']:.2f} ± {found['se_pp']:.2f} | {other['perplexity']:.2f} | {other['pct']:.2f} |"
            )
        ours, theirs = (_means(quality[model][group]) for model in (name, "trigrams"))
        rows.append(f"| mean | | {ours[0]:.2f} | {ours[1]:.2f} | {theirs[0]:.2f} | {theirs[1]:.2f} |")
    return rows


def _means(domains: dict) -> tuple[float, float]:
    """(geometric mean of the perplexities, mean accuracy in percent)."""
    entries = list(domains.values())
    return math.exp(sum(e["loss"] for e in entries) / len(entries)), sum(e["pct"] for e in entries) / len(entries)
