"""`icd optimize`: a faster copy of a model from nothing but the model and a file of text."""

import importlib
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from icd_lib.api import Optimized, optimize
from icd_lib.command.folder import check_out
from icd_lib.command.judges import JUDGES, Judge, NextTokenJudge, OwnJudge
from icd_lib.command.measure import time_models
from icd_lib.command.texts import sample_texts
from icd_lib.data.batches import encode, token_batches
from icd_lib.errors import ConfigError, TransformError
from icd_lib.models.checkpoint.loading import open_model
from icd_lib.models.families import family_of
from icd_lib.runtimes import reference_of
from icd_lib.storage.devices import AUTO, CPU, check_device, find_device, telling_of_memory

LEAST_TEXTS, MOST_TEXTS = 64, 2000
HELD_OUT = 0.25  # of the texts judge and calibrate nothing
TOKENS_PER_BATCH = 2048
TARGET = -0.2  # latency against dense, where nothing is asked for


@dataclass(frozen=True)
class Made:
    """What `icd optimize` did: the copy, how it was judged, its measured latency, and where it lies."""

    optimized: Optimized
    judged_by: str
    detail: dict
    latency: dict
    folder: Path
    texts: dict[str, int]


@telling_of_memory("icd optimize computed", "use fewer or shorter texts (--max-length)")
def optimize_on_texts(
    name: str,
    calibrate: str,
    out: str,
    *,
    target: float | None = None,
    budget: float | None = None,
    quality: str | None = None,
    field: str | None = None,
    mode: str = "iterative",
    max_length: int = 128,
    seed: int = 0,
    device: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Made:
    """Optimise the model `name` on the texts of the file `calibrate` and write it to the folder `out`.

    target: latency to reach, relative to dense (default -0.2 where no budget is given); budget: percentage points that
    the judge may fall. quality: "module:function", a judge of one's own (model → percent);
    without it the judges of `icd_lib.command.judges` ask for no labels. device: as in `icd.optimize`; a model that is
    for a GPU by name is judged there too. Raises `IcdError` on bad input, before anything
    is computed where that can be known.
    """
    folder, asked = check_out(out, force=force), check_device(device, "--device")
    own: Judge | None = None if quality is None else OwnJudge(quality, load_function(quality))
    texts = sample_texts(calibrate, MOST_TEXTS, seed, field)
    if len(texts) < LEAST_TEXTS:
        raise ConfigError(
            f"{calibrate} holds {len(texts)} different texts; to calibrate on some and judge by others takes "
            f"{LEAST_TEXTS}"
        )
    model, tokenizer, label = open_model(name)
    if asked not in (AUTO, CPU):
        size = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
        model.to(find_device(asked, size, where="--device").torch)
    length = check_length(model, max_length)
    random.Random(seed).shuffle(texts)
    held = texts[: int(len(texts) * HELD_OUT)]
    batches = _batches(tokenizer, texts[len(held) :], length)
    say(f"{label}: {len(texts) - len(held)} texts calibrate, {len(held)} others judge")
    judge: Judge = own or _judge(model, tokenizer, held, length)
    if target is None and budget is None:
        target = TARGET
    given: dict[str, Any] = {} if budget is None else {"budget_pp": budget}
    made = optimize(
        model,
        batches,
        quality=judge,
        latency_target_rel=target,
        mode=mode,
        seed=seed,
        progress=say,
        device=asked,
        **given,
    )
    if made.report["validation"] is None:
        raise TransformError(
            f"no candidate was kept ({_last_reason(made.report)}); nothing was written. Ask for less with --target, "
            "allow more with --budget, or give more text"
        )
    reached = judge(made.model)  # the last judged was perhaps another
    say("timing the copy against the dense model")
    where = made.report.get("device", CPU)
    latency = time_models(
        {"dense": model, "icd": made.model},
        [(8, length), (1, min(32, length))],
        runtimes=[reference_of(where)],
        seed=seed,
        device=where,
    )
    detail = {"value_pct": reached, "dense_pct": made.report["validation"]["dense_quality_pct"]}
    detail |= judge.detail()
    meta = {"command": "icd optimize", "model": label, "judged_by": judge.words, "judged": detail, **made.report}
    path = Optimized(made.model.cpu(), meta).save_pretrained(folder, tokenizer)
    counts = {"calibrate": len(texts) - len(held), "judge": len(held)}
    return Made(made, judge.words, detail, latency, path, counts)


def check_length(model: nn.Module, max_length: int) -> int:
    """`max_length`, or fewer where the model has fewer positions."""
    if max_length < 8:
        raise ConfigError(f"--max-length is 8 tokens or more; got {max_length}")
    positions = getattr(model.config, "max_position_embeddings", None)
    return max_length if positions is None else min(max_length, positions)


def load_function(place: str) -> Callable[[nn.Module], float]:
    """The function at "module:function"; `ConfigError` if there is none."""
    source, _, name = place.rpartition(":")
    if not source or not name:
        raise ConfigError(f"--quality is module:function; got {place}")
    if "" not in sys.path:
        sys.path.append("")  # modules in the folder one is in, as with python -m
    try:
        function = getattr(importlib.import_module(source), name)
    except (ImportError, OSError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"--quality {place} cannot be loaded ({type(error).__name__}: {error})") from error
    if not callable(function):
        raise ConfigError(f"--quality {place} is no function, it is a {type(function).__name__}")
    return function


def _judge(model: nn.Module, tokenizer, held: list[str], length: int) -> Judge:
    family = family_of(model)
    judge = JUDGES[family.judge if family else "encoder"]
    if judge is NextTokenJudge and not hasattr(model, "lm_head"):
        raise ConfigError(
            f"{type(model).__name__} predicts no next token, so nothing judges it without labels; give --quality"
        )
    return judge(model, tokenizer, held, length)


def _batches(tokenizer, texts: list[str], length: int) -> list[dict[str, torch.Tensor]]:
    """The model's inputs, every sequence once."""
    batches = token_batches(encode(tokenizer, texts, length), TOKENS_PER_BATCH)
    return [{"input_ids": ids, "attention_mask": mask} for _, ids, mask in batches]


def _last_reason(report: dict) -> str:
    reasons = [entry["reasons"][0] for entry in report["attempts"] if entry["reasons"]]
    return reasons[-1] if reasons else "no attempt fits"
