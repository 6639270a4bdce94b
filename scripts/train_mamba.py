"""Train the embedded language model: a small Mamba on the train part of the embedded public-domain text.

    python scripts/train_mamba.py                       # trains, judges, writes the checkpoint and its card
    python scripts/train_mamba.py --slice-minutes 9     # stops after nine minutes; run it again to go on

Text, tokenizer, order of the blocks and weights are functions of the seed: on one machine, with one number of threads
and one version of the kernels, the same seed gives the same loss curve, in one go or in slices.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from mamba_card import write_card
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from icd_lib.data.language import LanguageData, load_language_data, pack
from icd_lib.data.language_ngram import NGram
from icd_lib.errors import ArtifactError
from icd_lib.kernels import use_fast_scan
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.quality_lm import LanguageResult, judge_blocks, summarise_result
from icd_lib.models.checkpoint.files import hash_files

CHECKPOINT = Path(__file__).parents[1] / "icd_lib" / "models" / "embedded" / "mamba-verse"
END_OF_TEXT = "<|endoftext|>"
LICENCE = "cc0-1.0"
STATE = "state.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 0
    vocab_size: int = 2048
    hidden_size: int = 256
    layers: int = 6
    state_size: int = 16
    length: int = 256  # tokens per block
    batch: int = 8  # blocks per step
    steps: int = 1600
    learning_rate: float = 4e-3
    warmup: int = 200
    horizon: int = 3600  # steps of the cosine that the rate follows after the warm-up,
    decay_from: int = 1400  # until here; then straight down
    final_rate: float = 0.02  # to this share of the peak
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    dropout: float = 0.15  # of embeddings and of what out_proj reads
    threads: int = 2
    log_every: int = 100
    judge_every: int = 400
    judge_blocks: int = 96


def train_tokenizer(texts: list[str], vocab_size: int) -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE: every text can be encoded, and decoding gives it back; one special token ends a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = {"eos_token": END_OF_TEXT, "bos_token": END_OF_TEXT, "pad_token": END_OF_TEXT, "unk_token": END_OF_TEXT}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def build_model(recipe: Recipe) -> transformers.MambaForCausalLM:
    """Seeded initial weights of the recipe's shape.

    out_proj is scaled by 1/√layers (Radford et al. 2019) here and not by the config's `rescale_prenorm_residual`:
    with that flag transformers 5.23 scales loaded weights a second time.
    """
    config = transformers.MambaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        state_size=recipe.state_size,
        initializer_range=0.02,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = transformers.MambaForCausalLM(config).train()
    with torch.no_grad():
        for layer in model.backbone.layers:
            layer.mixer.out_proj.weight /= math.sqrt(recipe.layers)
    return model


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors, embeddings and A_log do not."""
    decays = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Linear) and module.weight.dim() == 2
    } - {id(model.get_input_embeddings().weight)}
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if id(p) in decays], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if id(p) not in decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)


def install_dropout(model: nn.Module, rate: float) -> None:
    """Drop entries of the embeddings and of what every out_proj reads, while the model is in training mode."""

    def of_output(module, inputs, output):
        return nn.functional.dropout(output, rate, module.training)

    def of_input(module, inputs):
        return (nn.functional.dropout(inputs[0], rate, module.training),)

    model.get_input_embeddings().register_forward_hook(of_output)
    for layer in model.backbone.layers:
        layer.mixer.out_proj.register_forward_pre_hook(of_input)


def learning_rate(step: int, recipe: Recipe) -> float:
    """Warm-up, a cosine over `horizon` steps until `decay_from`, then straight down to `final_rate` of the peak."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    done = (min(step, recipe.decay_from) - recipe.warmup) / (recipe.horizon - recipe.warmup)
    left = min(1.0, (recipe.steps - step) / (recipe.steps - recipe.decay_from))
    low = recipe.final_rate
    return recipe.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)) * left)


def batch_at(stream: np.ndarray, step: int, recipe: Recipe) -> torch.Tensor:
    """The blocks of a step, (batch, length + 1) int64: each epoch cuts the stream elsewhere and shuffles the blocks."""
    per_epoch = (len(stream) - recipe.length) // recipe.length // recipe.batch
    if per_epoch < 1:
        raise ArtifactError(f"a step takes {recipe.batch} blocks of {recipe.length}; the text has {len(stream)} tokens")
    epoch, place = divmod(step, per_epoch)
    rng = np.random.default_rng([recipe.seed, epoch])
    offset = int(rng.integers(recipe.length))
    blocks = (len(stream) - 1 - offset) // recipe.length
    rows = rng.permutation(blocks)[place * recipe.batch : (place + 1) * recipe.batch]
    return torch.from_numpy(stream[offset + rows[:, None] * recipe.length + np.arange(recipe.length + 1)])


def loss_of(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy, nats per token, of predicting tokens[:, 1:]."""
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def train(
    recipe: Recipe, data: LanguageData, tokenizer, work: Path, *, seconds: float = math.inf, report=print
) -> tuple[transformers.MambaForCausalLM, dict]:
    """Go on from what `work` holds, for at most `seconds`; returns (model, log). `log["step"]` tells how far it is."""
    torch.set_num_threads(recipe.threads)
    stream = pack(tokenizer, data.texts("train"), 2).ids.ravel()
    judged = data.blocks(tokenizer, "validation", recipe.length).spread(recipe.judge_blocks)
    model = use_fast_scan(build_model(recipe))
    install_dropout(model, recipe.dropout)
    optimizer = build_optimizer(model, recipe)
    log = resume(work, recipe, model, optimizer)
    started, losses = time.perf_counter(), []
    while log["step"] < recipe.steps and time.perf_counter() - started < seconds:
        losses.append(train_step(model, optimizer, batch_at(stream, log["step"], recipe), log["step"], recipe))
        log["step"] += 1
        if log["step"] % recipe.log_every == 0 or log["step"] == recipe.steps:
            log["loss"].append([log["step"], round(float(np.mean(log.pop("pending") + losses)), 5)])
            log["pending"], losses = [], []
            report(f"step {log['step']}: train {log['loss'][-1][1]:.4f}, {time.perf_counter() - started:.0f} s")
        if log["step"] % recipe.judge_every == 0 or log["step"] == recipe.steps:
            found = judge_blocks(model.eval(), judged)
            model.train()
            log["validation"].append([log["step"], round(math.log(found.perplexity), 5), round(found.quality_pct, 3)])
            report(f"step {log['step']}: validation {log['validation'][-1][1]:.4f}, {found.quality_pct:.2f} %")
    log["pending"] += losses
    log["seconds"] += time.perf_counter() - started
    save_state(work, recipe, model, optimizer, log)
    return model.eval(), log


def train_step(model: nn.Module, optimizer, tokens: torch.Tensor, step: int, recipe: Recipe) -> float:
    """One update; returns the loss before it. Raises `ArtifactError` when the loss is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed * 2**32 + step)  # what is dropped depends on the step alone, not on slices
        loss = loss_of(model, tokens)
    if not torch.isfinite(loss):
        raise ArtifactError(f"the loss of step {step} is {loss.item()}; lower the learning rate")
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


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
    tensors = load_file(path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model.{name}"])
            optimizer.state[p] = {key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
    return json.loads(meta["log"])


def write_checkpoint(model: nn.Module, tokenizer, folder: Path) -> None:
    """config.json, tokenizer and model.safetensors: matrices in bfloat16, vectors and A_log in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    config.architectures, config.dtype = ["MambaForCausalLM"], torch.float32
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = {name: rounded(name, p.detach()).contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def rounded(name: str, weight: torch.Tensor) -> torch.Tensor:
    """The precision a weight is stored in."""
    return weight if weight.dim() < 2 or name.endswith("A_log") else weight.to(torch.bfloat16)


def judge(folder: Path, data: LanguageData, recipe: Recipe) -> dict:
    """Quality of the checkpoint as it loads, and of n-grams, on validation and test: name -> split -> figures."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    model = use_fast_scan(model.eval())
    blocks = {split: data.blocks(tokenizer, split, recipe.length) for split in ("test", "validation")}
    stream = pack(tokenizer, data.texts("train"), 2).ids.ravel()
    found = {
        "mamba-verse": {split: summarise_result(judge_blocks(model, judged)) for split, judged in blocks.items()},
    }
    for order, name in ((3, "trigrams"), (2, "bigrams"), (1, "unigrams")):
        counted = NGram(stream, recipe.vocab_size, order)
        found[name] = {
            split: summarise_result(LanguageResult(*counted.score(judged.ids), judged.cluster[:, 1:]))
            for split, judged in blocks.items()
        }
    return found


def describe(folder: Path, data: LanguageData, tokenizer, recipe: Recipe, log: dict) -> dict:
    """What training.json and the card say."""
    quality = judge(folder, data, recipe)
    weights = folder / "model.safetensors"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    machine = fingerprint()
    train_tokens = pack(tokenizer, data.texts("train"), 2).ids.size
    seen = recipe.steps * recipe.batch * recipe.length
    card = asdict(recipe) | {
        "licence": LICENCE,
        "parameters": sum(x.numel() for x in load_file(weights).values()),
        "inner": config["intermediate_size"],
        "data_name": data.provenance["name"],
        "data_packages": ", ".join(f"{name} {version}" for name, version in data.provenance["packages"].items()),
        "data_licence": data.provenance["licence"],
        "data_sha256": data.sha256,
        "train_tokens": train_tokens,
        "seen_tokens": seen,
        "epochs": seen / train_tokens,
        "minutes": log["seconds"] / 60,
        "processor": machine["cpu"]["model"],
        "torch": machine["packages"]["torch"],
        "transformers": machine["packages"]["transformers"],
        "bytes": weights.stat().st_size,
        "sha256": hash_files([weights]),
    }
    card |= {f"{split}_chapters": len(items) // 2 for split, items in data.splits.items()}
    card |= {f"{split}_tokens": quality["mamba-verse"][split]["n_items"] for split in ("test", "validation")}
    return {"card": card, "quality": quality, "loss": log["loss"], "validation": log["validation"]}


def finish(model: nn.Module, tokenizer, data: LanguageData, recipe: Recipe, log: dict, folder: Path) -> dict:
    """Write the checkpoint, judge what was written, write training.json and the card; nothing is left half-written."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_checkpoint(model, tokenizer, partial)
    facts = describe(partial, data, tokenizer, recipe, log)
    (partial / "training.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    write_card(partial, facts)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return facts


def main(arguments: list[str] | None = None) -> int:
    """Train, and when all steps are done write the checkpoint; 0 when it is written, 1 when there is more to train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="checkpoint folder, replaced when all is done")
    parser.add_argument("--work", type=Path, default=Path("build/mamba-verse"), help="where unfinished training lies")
    parser.add_argument("--slice-minutes", type=float, default=math.inf, help="stop after so many minutes")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args(arguments)
    recipe = Recipe(seed=options.seed)
    data = load_language_data()
    tokenizer = train_tokenizer(data.texts("train"), recipe.vocab_size)
    model, log = train(recipe, data, tokenizer, options.work, seconds=60 * options.slice_minutes)
    if log["step"] < recipe.steps:
        print(f"{log['step']} of {recipe.steps} steps are done; run the same command again to go on")
        return 1
    facts = finish(model, tokenizer, data, recipe, log, options.out)
    print((options.out / "README.md").read_text(encoding="utf-8"))
    return 0 if facts else 1


if __name__ == "__main__":
    sys.exit(main())
