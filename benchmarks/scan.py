"""Dense Mamba with this package's scan against Transformers' fallback, interleaved in one process.

    python benchmarks/scan.py                      130M shape, random weights: prefill of 2 x 256 tokens, decoding
    python benchmarks/scan.py --json scan.json     the same figures as JSON

Ratios are stock / fast with a 95 % interval; "fast again" is the same model once more (A/A), its interval must hold 1.
"""

import argparse
import copy
import os
from collections.abc import Callable

import numpy as np
import torch
import transformers
from torch import nn

from icd_lib.kernels import use_fast_scan
from icd_lib.measure.environment import fingerprint
from icd_lib.measure.latency import measure_interleaved
from icd_lib.measure.statistics import paired_ratio
from icd_lib.models.shapes import SHAPES, shape_names
from icd_lib.storage.atomic import atomic_write, to_json


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    stock, fast = build_models(options.shape, options.layers)
    ids = torch.randint(0, stock.config.vocab_size, (options.batch, options.length))
    result = {
        "shape": options.shape,
        "layers": stock.config.num_hidden_layers,
        "batch": options.batch,
        "length": options.length,
        "threads": options.threads,
        "max_rel_error": largest_error(stock, fast, ids),
        "prefill": compare(prefill, stock, fast, ids, options.repeats),
        "decode": compare(decode, stock, fast, ids, 10 * options.repeats),
        "environment": fingerprint(),
    }
    show(result)
    if options.json:
        atomic_write(options.json, to_json(result))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="mamba-130m", choices=shape_names("mamba"))
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--repeats", type=int, default=15, help="interleaved rounds of the prefill; decoding takes 10 times"
    )
    parser.add_argument("--json", help="file for the figures")
    return parser.parse_args()


def build_models(shape: str, layers: int | None) -> tuple[nn.Module, nn.Module]:
    """The stock model with seeded random weights, and the same weights with the fast scan (shared, not copied)."""
    torch.manual_seed(0)
    changes = {"num_hidden_layers": layers} if layers else {}
    config = transformers.MambaConfig(
        **{k: v for k, v in (SHAPES[shape].config | changes).items() if k != "model_type"}
    )
    stock = transformers.MambaForCausalLM(config).eval()
    shared = {id(parameter): parameter for parameter in stock.parameters()}
    return stock, use_fast_scan(copy.deepcopy(stock, shared))


@torch.inference_mode()
def largest_error(stock: nn.Module, fast: nn.Module, ids: torch.Tensor) -> float:
    """max |fast − stock| / max |stock| over the logits."""
    wanted = stock(ids, use_cache=False).logits
    return float((fast(ids, use_cache=False).logits - wanted).abs().max() / wanted.abs().max())


def prefill(model: nn.Module, ids: torch.Tensor) -> Callable[[], object]:
    def run():
        with torch.inference_mode():
            return model(ids, use_cache=False)

    return run


def decode(model: nn.Module, ids: torch.Tensor) -> Callable[[], object]:
    """One more token for one sequence whose cache is filled."""
    with torch.inference_mode():
        cache = model(ids[:1], use_cache=True).cache_params

    def run():
        with torch.inference_mode():
            return model(ids[:1, :1], cache_params=cache, use_cache=True)

    return run


def compare(task: Callable, stock: nn.Module, fast: nn.Module, ids: torch.Tensor, repeats: int) -> dict:
    """Median milliseconds of each arm, and the ratios with their intervals."""
    arms = {"stock": task(stock, ids), "fast": task(fast, ids), "fast again": task(fast, ids)}
    samples = measure_interleaved(arms, repeats=repeats, warmup=2)
    return {
        "median_ms": {name: float(np.median(ms)) for name, ms in samples.items()},
        "stock_over_fast": ratio(samples["stock"], samples["fast"]),
        "fast_again_over_fast": ratio(samples["fast again"], samples["fast"]),
    }


def ratio(first: np.ndarray, second: np.ndarray) -> dict:
    found = paired_ratio(first, second)
    return {"value": 1 + found["value"], "ci95": [1 + bound for bound in found["ci95"]], "n": found["n"]}


def show(result: dict) -> None:
    print(f"{result['shape']}, {result['layers']} layers, {result['threads']} threads; logits differ by ", end="")
    print(f"{result['max_rel_error']:.1e} relative")
    for name, what in (("prefill", f"{result['batch']} x {result['length']} tokens"), ("decode", "one token")):
        figures = result[name]
        print(f"{name}, {what}: " + ", ".join(f"{arm} {ms:.1f} ms" for arm, ms in figures["median_ms"].items()))
        for key in ("stock_over_fast", "fast_again_over_fast"):
            low, high = figures[key]["ci95"]
            print(
                f"  {key.replace('_', ' ')}: {figures[key]['value']:.2f} [{low:.2f}, {high:.2f}], n {figures[key]['n']}"
            )


if __name__ == "__main__":
    main()
