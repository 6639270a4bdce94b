"""Training a small language model: a function of recipe and text, in one go or in slices."""

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from language_recipes import Recipe, build_model, install_dropout
from language_text import Batches, Text, streams_of
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from icd_lib.data.language import Blocks
from icd_lib.errors import ArtifactError
from icd_lib.measure.quality_lm import judge_blocks

STATE = "state.safetensors"


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors, embeddings and what is no Linear's weight do not."""
    decays = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Linear) and module.weight.dim() == 2
    } - {id(model.get_input_embeddings().weight)}
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if id(p) in decays], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if id(p) not in decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Warm-up, a cosine over `horizon` steps until `decay_from`, then straight down to `final_rate` of the peak."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (min(step, recipe.decay_from) - recipe.warmup) / (recipe.horizon - recipe.warmup)
    left = min(1.0, (recipe.steps - step) / (recipe.steps - recipe.decay_from))
    low = recipe.final_rate
    return recipe.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)) * left)


def loss_of(model: nn.Module, tokens: torch.Tensor, bf16: bool = False) -> torch.Tensor:
    """Mean cross entropy, nats per token, of predicting tokens[:, 1:]; with bf16 the products are in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())


def train_step(model: nn.Module, optimizer, tokens: torch.Tensor, step: int, recipe: Recipe) -> float:
    """One update; returns the loss before it. Raises `ArtifactError` when the loss is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed * 2**32 + step)  # what is dropped depends on the step alone, not on slices
        loss = loss_of(model, tokens, recipe.bf16)
    if not torch.isfinite(loss):
        raise ArtifactError(f"the loss of step {step} is {loss.item()}; lower the learning rate")
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def train(
    recipe: Recipe, text: Text, tokenizer, work: Path, *, seconds: float = math.inf, report=print
) -> tuple[nn.Module, dict]:
    """Go on from what `work` holds, for at most `seconds`; returns (model, log). `log["step"]` tells how far it is.

    log: `loss` has [step, mean of the steps before], `validation` [step, mean loss of the domains, mean accuracy in
    percent, {domain: loss}], both in nats per token.
    """
    torch.set_num_threads(recipe.threads)
    batches = Batches(streams_of(text, tokenizer), recipe)
    judged = validation_blocks(text, tokenizer, recipe)
    model = recipe.quicken(build_model(recipe))
    install_dropout(model, recipe)
    optimizer = build_optimizer(model, recipe)
    log = resume(work, recipe, model, optimizer)
    started, losses = time.perf_counter(), []
    while log["step"] < recipe.steps and time.perf_counter() - started < seconds:
        losses.append(train_step(model, optimizer, batches.at(log["step"]), log["step"], recipe))
        log["step"] += 1
        if log["step"] % recipe.log_every == 0 or log["step"] == recipe.steps:
            log["loss"].append([log["step"], round(float(np.mean(log.pop("pending") + losses)), 5)])
            log["pending"], losses = [], []
            report(f"step {log['step']}: train {log['loss'][-1][1]:.4f}, {time.perf_counter() - started:.0f} s")
        if log["step"] % recipe.judge_every == 0 or log["step"] == recipe.steps:
            log["validation"].append([log["step"], *validate(model, judged)])
            report(f"step {log['step']}: validation {log['validation'][-1][1:]}")
    log["pending"] += losses
    log["seconds"] += time.perf_counter() - started
    save_state(work, recipe, model, optimizer, log)
    return model.eval(), log


def validation_blocks(text: Text, tokenizer, recipe: Recipe) -> dict[str, Blocks]:
    """Domain → evenly spaced blocks of its validation text."""
    return {
        name: data.blocks(tokenizer, "validation", recipe.length).spread(recipe.judge_blocks)
        for name, data in text.seen.items()
    }


def validate(model: nn.Module, judged: dict[str, Blocks]) -> tuple[float, float, dict[str, float]]:
    """(mean loss over domains, mean accuracy in percent, loss of each); leaves the model in training mode."""
    found = {name: judge_blocks(model.eval(), blocks) for name, blocks in judged.items()}
    model.train()
    losses = {name: round(math.log(result.perplexity), 5) for name, result in found.items()}
    accuracy = float(np.mean([result.quality_pct for result in found.values()]))
    return round(float(np.mean(list(losses.values()))), 5), round(accuracy, 3), losses


def save_state(work: Path, recipe: Recipe, model: nn.Module, optimizer, log: dict) -> None:
    """Weights, moments and log, so that the next slice goes on as if there had been no break."""
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters()}
    names = {id(p): name for name, p in model.named_parameters()}
    for p, entry in optimizer.state.items():
        tensors |= {f"{key}.{names[id(p)]}": value for key, value in entry.items()}
    work.mkdir(parents=True, exist_ok=True)
    partial = work / f"{STATE}.partial"
    meta = {"recipe": json.dumps(asdict(recipe)), "log": json.dumps(log)}
    save_file({name: x.contiguous() for name, x in tensors.items()}, partial, metadata=meta)
    os.replace(partial, work / STATE)


def resume(work: Path, recipe: Recipe, model: nn.Module, optimizer) -> dict:
    """Read what `save_state` wrote, if there is anything; `ArtifactError` when it is of another recipe."""
    path = work / STATE
    if not path.is_file():
        return {"step": 0, "seconds": 0.0, "loss": [], "validation": [], "pending": []}
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
    if json.loads(meta["recipe"]) != json.loads(json.dumps(asdict(recipe))):
        raise ArtifactError(f"{path} is of another recipe; delete it or give another --work")
    tensors, log = load_file(path), json.loads(meta["log"])
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model.{name}"])
            if log["step"]:  # before the first one there are no moments
                optimizer.state[p] = {key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    return log
