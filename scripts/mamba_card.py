"""The model card of the embedded language model, written from the facts of its training and from nothing else."""

from pathlib import Path

_CARD = """---
license: {licence}
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [mamba, causal-lm, small]
---
# mamba-verse

A Mamba of {parameters:,} parameters ({layers} layers, {hidden_size} wide, inner width {inner}, state {state_size},
vocabulary {vocab_size:,}), trained from scratch by this project on public-domain text. It exists so that pruning,
permuting and measuring a *trained* Mamba needs no network. It is no useful writer: it has read one book, in two
translations.

## Data

{data_name}
({data_packages}; {data_licence}), as chapters:
{train_chapters} to train on, {calibration_chapters} for calibration, {validation_chapters} for validation and
{test_chapters} for the test, each in both translations. No verse of one part is in another, in either translation;
parallel passages in other words (Kings and Chronicles, the gospels) are. Model and tokenizer saw the train part only:
{train_tokens:,} tokens. sha256 of the text and its split: `{data_sha256}`.

## Training

{steps:,} steps of {batch} × {length} tokens ({seen_tokens:,} tokens, {epochs:.1f} passes); AdamW, betas {betas}, weight
decay {weight_decay:g} on matrices; learning rate {learning_rate:g} with a warm-up of {warmup} steps, a cosine over
{horizon:,} steps that is left at step {decay_from:,}, and a straight line from there to {final_rate:.0%} of the peak;
dropout {dropout:g} of embeddings and of what out_proj reads; gradients clipped at {clip:g}; float32; seed {seed}.
{minutes:.1f} minutes of wall time on {threads} threads of a machine that did other work too ({processor};
torch {torch}, transformers {transformers}).

The schedule was shortened from {horizon:,} steps while it ran, when the machine's time ran out: the model is trained
briefly and would gain from more. Learning rate and dropout were chosen on validation text, in three shorter runs.

To train it again: `python scripts/train_mamba.py`. On one machine, with one number of threads and one version of this
package, the same seed gives the same loss curve; other kernels sum in another order and follow it up to rounding.

| step | train loss | validation loss | validation accuracy, % |
|---:|---:|---:|---:|
{curve}

Losses are in nats per token: train is the mean over the {log_every} steps before, validation over {judge_blocks} evenly
spaced blocks. `training.json` has the whole curve.

## Quality

Every token but the first of each block of {length} tokens; ± is a standard error, the brackets are 95 % intervals, both
clustered by chapter.

| | test perplexity | test next-token accuracy, % | validation perplexity | validation accuracy, % |
|---|---:|---:|---:|---:|
{quality}

{test_tokens:,} test and {validation_tokens:,} validation tokens. The n-grams are interpolated with Witten-Bell weights
and counted on the same train part, in the same tokens. Nothing was chosen on test text.

## Files

`model.safetensors`: {bytes:,} bytes, sha256 `{sha256}`.
Matrices are rounded to bfloat16, vectors and `A_log` are float32. It loads in float32, and the figures above are of the
rounded weights.
"""


def write_card(folder: Path, facts: dict) -> Path:
    """Write README.md; `facts` is what training.json holds."""
    validation = {step: (loss, pct) for step, loss, pct in facts["validation"]}
    curve = [
        f"| {step:,} | {loss:.3f} | {validation[step][0]:.3f} | {validation[step][1]:.2f} |"
        for step, loss in facts["loss"]
        if step in validation
    ]
    quality = [_quality_row(name, entry) for name, entry in facts["quality"].items()]
    path = Path(folder) / "README.md"
    path.write_text(_CARD.format(**facts["card"], curve="\n".join(curve), quality="\n".join(quality)), encoding="utf-8")
    return path


def _quality_row(name: str, entry: dict) -> str:
    cells = []
    for split in ("test", "validation"):
        found = entry[split]
        low, high = found["perplexity_ci95"]
        cells += [f"{found['perplexity']:.2f} ({low:.2f} to {high:.2f})", f"{found['pct']:.2f} ± {found['se_pp']:.2f}"]
    return f"| {name} | {' | '.join(cells)} |"
