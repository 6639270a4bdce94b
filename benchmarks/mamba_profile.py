"""Where a Mamba's time goes, dense and pruned: scan, convolution, projections, norms, embedding and head, Python.

    python benchmarks/mamba_profile.py                     the embedded model, and less of its channels and states
    python benchmarks/mamba_profile.py --json profile.json

Every part of a call is timed where it is called, in calls of its own; what is left of a call's time is what lies
between the parts: Python, and the operators that join them. A decoded token is profiled twice: with each layer's step
in four calls, and as the one kernel that it is now; the two are timed interleaved too, with an A/A control. The tables
go into docs/MAMBA.md. Run it alone.
"""

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn

from icd_lib.axes.compact import compact
from icd_lib.kernels import mixer as mixers
from icd_lib.measure.conditions import disturbances, watched
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import measure_interleaved
from icd_lib.measure.statistics import paired_ratio
from icd_lib.models.checkpoint.loading import load_model
from icd_lib.models.checkpoint.source import resolve_checkpoint
from icd_lib.models.families import find_adapter
from icd_lib.report.marked import with_marked
from icd_lib.runtimes.threads import torch_threads
from icd_lib.storage.atomic import atomic_write, to_json

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "MAMBA.md"
PROMPTS = {"1 × 64": (1, 64), "2 × 256": (2, 256)}
TOKENS = {"one token": (1, 1), "one token of 8 texts": (8, 1)}
KEPT = {"inner": 0.9, "state": 0.5}  # shares, about those of the reference run
TILE = 16
FUNCTIONS = {  # of icd_lib.kernels.mixer → the part that it is
    "causal_conv1d": "convolution",
    "causal_conv1d_step": "convolution",
    "selective_scan": "scan",
    "selective_scan_step": "scan",
    "linear": "projections",
    "rates": "scan",
    "mixer_step": "step kernel",
}
PARTS = ("scan", "convolution", "step kernel", "projections", "norms", "embedding and head", "Python and the rest")
BEFORE = 256  # tokens that were read before a token is decoded


class Parts:
    """Nanoseconds of each part of the calls since `clear`."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(PARTS, 0)

    def clear(self) -> None:
        self.spent = dict.fromkeys(PARTS, 0)

    def timed(self, part: str, call: Callable) -> Callable:
        def run(*given, **named):
            start = time.perf_counter_ns()
            try:
                return call(*given, **named)
            finally:
                self.spent[part] += time.perf_counter_ns() - start

        return run


def part_of(name: str, module: nn.Module) -> str | None:
    """The part that a module is as a whole; None for one that holds parts, or lies inside one."""
    if name.endswith(("embeddings", "lm_head")):
        return "embedding and head"
    if isinstance(module, nn.Linear):
        return "projections"
    return "norms" if type(module).__name__.endswith("RMSNorm") else None


@contextlib.contextmanager
def observed(model: nn.Module, fused: bool) -> Iterator[Parts]:
    """The model with a clock around each part for as long; fused: nobody looks at what lies in a step's kernel."""
    parts = Parts()
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            inside = fused and name.endswith("x_proj")
            if not inside and (part := part_of(name, module)) is not None:
                stack.enter_context(mock.patch.object(module, "forward", parts.timed(part, module.forward)))
        for name, part in FUNCTIONS.items():
            if name == "mixer_step" and not fused:
                continue
            stack.enter_context(mock.patch.object(mixers, name, parts.timed(part, getattr(mixers, name))))
        yield parts


@contextlib.contextmanager
def in_four_calls() -> Iterator[None]:
    """Steps as they were before they were one kernel."""
    with mock.patch.object(mixers, "mixer_step", lambda *given: None):
        yield


def pruned(model: nn.Module) -> nn.Module:
    """The model with `KEPT` of its axes: which elements are left is no matter of time."""
    for axis in find_adapter(model).axes():
        if axis.kind in KEPT:
            granule = TILE if axis.kind == "inner" else 1
            kept = round(KEPT[axis.kind] * axis.size / granule) * granule
            compact(model, axis, np.arange(axis.size) < kept)
    return model


def call_of(model: nn.Module, batch: int, length: int) -> Callable[[], object]:
    """A prompt, or one more token of texts whose state is filled."""
    vocabulary = model.config.vocab_size
    ids = torch.randint(0, vocabulary, (batch, length), generator=torch.Generator().manual_seed(0))
    if length > 1:
        return lambda: model(ids, use_cache=False)
    before = torch.randint(0, vocabulary, (batch, BEFORE), generator=torch.Generator().manual_seed(1))
    cache = model(before, use_cache=True).cache_params
    return lambda: model(ids, cache_params=cache, use_cache=True, logits_to_keep=1)


@torch.inference_mode()
def profile(model: nn.Module, batch: int, length: int, repeats: int, fused: bool) -> dict:
    """Median milliseconds of a call as it is, and of each part of calls that are observed."""
    call = call_of(model, batch, length)
    whole, spent = [], {part: [] for part in PARTS}
    for _ in range(5):
        call()
    for _ in range(repeats):
        start = time.perf_counter_ns()
        call()
        whole.append(time.perf_counter_ns() - start)
    with observed(model, fused) as parts:
        call()
        for _ in range(repeats):
            parts.clear()
            call()
            for part, ns in parts.spent.items():
                spent[part].append(ns)
    found = {part: float(np.median(ns)) / 1e6 for part, ns in spent.items()}
    total = float(np.median(whole)) / 1e6
    found[PARTS[-1]] = total - sum(found.values())
    return {"call_ms": total, "parts_ms": found, "n": repeats}


@torch.inference_mode()
def fusion(model: nn.Module, batch: int, repeats: int) -> dict:
    """A token with each layer's step in four calls against one kernel, interleaved, and the kernel against itself."""

    def apart(call: Callable) -> Callable:
        def run():
            with in_four_calls():
                call()

        return run

    calls = {name: call_of(model, batch, 1) for name in ("four calls", "one kernel", "one kernel again")}
    samples = measure_interleaved(calls | {"four calls": apart(calls["four calls"])}, repeats=repeats, warmup=20)
    return {
        "median_ms": {name: float(np.median(ms)) for name, ms in samples.items()},
        "kernel_vs_calls": paired_ratio(samples["one kernel"], samples["four calls"]),
        "again_vs_kernel": paired_ratio(samples["one kernel again"], samples["one kernel"]),
    }


def table(records: list[dict]) -> str:
    """Markdown: a line for every model and shape."""
    lines = [f"| | model | ms | {' | '.join(PARTS)} |", "|---" * (len(PARTS) + 3) + "|"]
    for one in records:
        shares = " | ".join(f"{ms / one['call_ms']:.0%}" if ms else "–" for ms in one["parts_ms"].values())
        lines.append(f"| {one['shape']} | {one['model']} | {one['call_ms']:.2f} | {shares} |")
    return "\n".join(lines)


def fusion_table(found: dict[str, dict]) -> str:
    """Markdown: what one kernel changes of a token's time."""
    lines = ["| | four calls, ms | one kernel, ms | change | the kernel against itself |", "|---" * 5 + "|"]
    for words, one in found.items():
        median = one["median_ms"]
        changes = " | ".join(_told(one[key]) for key in ("kernel_vs_calls", "again_vs_kernel"))
        lines.append(f"| {words} | {median['four calls']:.2f} | {median['one kernel']:.2f} | {changes} |")
    return "\n".join(lines)


def _told(ratio: dict) -> str:
    low, high = ratio["ci95"]
    return f"{100 * ratio['value']:+.1f} % ({100 * low:+.1f} … {100 * high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=60, help="calls of a prompt; a token takes five times as many")
    parser.add_argument("--json", type=Path, default=ROOT / "docs" / "figures" / "mamba_profile.json")
    options = parser.parse_args()
    source = resolve_checkpoint(None, family="mamba")
    records, fused = [], {}
    with torch_threads(options.threads), watched() as conditions:
        models = {"dense": load_model(source)[0], "pruned": pruned(load_model(source)[0])}
        for words, shape in PROMPTS.items():
            for name, model in models.items():
                found = profile(model, *shape, options.repeats, fused=True)
                records.append({"shape": words, "model": name} | found)
        for words, shape in TOKENS.items():
            for name, model in models.items():
                with in_four_calls():
                    found = profile(model, *shape, 5 * options.repeats, fused=False)
                records.append({"shape": f"{words}, in four calls", "model": name} | found)
                found = profile(model, *shape, 5 * options.repeats, fused=True)
                records.append({"shape": words, "model": name} | found)
            fused[words] = fusion(models["dense"], shape[0], 5 * options.repeats)
    result = {
        "model": source.name,
        "kept": KEPT,
        "threads": options.threads,
        "records": records,
        "fusion": fused,
        "disturbances": disturbances(conditions),
        "environment": fingerprint(),
    }
    atomic_write(options.json, to_json(result))
    shown = f"{table(records)}\n\n{fusion_table(fused)}"
    atomic_write(PAGE, with_marked(PAGE.read_text(encoding="utf-8"), "profile", shown))
    print(shown)
    print("; ".join(result["disturbances"]))


if __name__ == "__main__":
    main()
