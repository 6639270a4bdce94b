"""The selective scan on a device: the Triton kernel against the plain torch loop, and a whole Mamba with each."""

import copy
from collections.abc import Callable

import numpy as np
import torch
import transformers
from gpu_figures import aa_control, change, largest_error

from icd_lib.kernels import selective_scan, selective_scan_ref, use_fast_scan
from icd_lib.measure.latency import SETTLE_MS, measure_interleaved
from icd_lib.measure.statistics import summarise
from icd_lib.models.shapes import SHAPES
from icd_lib.runtimes.cuda_events import time_round_on_device

WIDTH, STATES = 1536, 16  # inner channels and states of the 130M shape
PLACES = {"prefill 8x256": (8, 256), "one token, batch 8": (8, 1)}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ROUNDS, MODEL_ROUNDS = 20, 10
METHOD = "ratio of medians - 1 over interleaved rounds; CUDA events"


def compare_scans(device: str = "cuda") -> tuple[dict, dict]:
    """Triton's kernel and the torch loop at the 130M shape: ({place: {precision: figures}}, samples)."""
    found: dict = {}
    samples: dict = {}
    for place, (sequences, length) in PLACES.items():
        for precision, dtype in DTYPES.items():
            inputs = make_scan(sequences, length, dtype, device)
            calls = {
                "triton": lambda inputs=inputs: selective_scan(**inputs, backend="triton"),
                "torch loop": lambda inputs=inputs: selective_scan_ref(**inputs),
            }
            exact = {name: x.double() if torch.is_tensor(x) else x for name, x in inputs.items()}
            wanted = selective_scan_ref(**exact).cpu().numpy()
            errors = {arm: largest_error(call().double().cpu().numpy(), wanted) for arm, call in calls.items()}
            entry, taken = compare(calls, "triton", "torch loop", ROUNDS)
            found.setdefault(place, {})[precision] = entry | {"max_rel_error_vs_double": errors}
            samples.setdefault(place, {})[precision] = taken
    return found, samples


def compare_mamba(sequences: int = 2, length: int = 256) -> tuple[dict, dict]:
    """Prefill of a whole Mamba, 130M shape, random weights, fp32: this package's scan and Transformers' own."""
    torch.manual_seed(0)
    sizes = {k: v for k, v in SHAPES["mamba-130m"].config.items() if k not in ("model_type", "architectures")}
    stock = transformers.MambaModel(transformers.MambaConfig(**sizes)).eval().cuda()
    fast = use_fast_scan(copy.deepcopy(stock))
    ids = torch.randint(0, stock.config.vocab_size, (sequences, length)).cuda()

    def prefill(model) -> torch.Tensor:
        with torch.no_grad():
            return model(ids, use_cache=False).last_hidden_state

    calls = {"fast scan": lambda: prefill(fast), "stock": lambda: prefill(stock)}
    error = largest_error(*(call().double().cpu().numpy() for call in calls.values()))
    found, samples = compare(calls, "fast scan", "stock", MODEL_ROUNDS)
    return found | {"tokens": f"{sequences}x{length}", "badges": ["random weights"], "max_rel_error": error}, samples


def compare(calls: dict[str, Callable], arm: str, other: str, rounds: int) -> tuple[dict, dict]:
    """Median milliseconds of both, the change with its interval, and the arm against itself."""
    calls = calls | {f"{arm} again": calls[arm]}
    samples = measure_interleaved(calls, repeats=rounds, warmup=3, time_round=time_round_on_device, settle_ms=SETTLE_MS)
    found = {"median_ms": {name: summarise(ms)["median"] for name, ms in samples.items()}}
    found[f"{arm} vs {other}"] = change(samples, arm, other)
    return found | aa_control(samples, f"{arm} again", arm), {name: np.asarray(ms) for name, ms in samples.items()}


def make_scan(sequences: int, length: int, dtype: torch.dtype, device: str) -> dict:
    """Arguments of a scan as a Mamba mixer gives them: views of (B, L, D) tensors, steps after softplus."""
    generator = torch.Generator().manual_seed(0)

    def rows(channels: int) -> torch.Tensor:
        return torch.randn(sequences, length, channels, generator=generator).to(device, dtype).transpose(1, 2)

    rates = -torch.arange(1, STATES + 1, dtype=torch.float32).repeat(WIDTH, 1)
    return {
        "u": rows(WIDTH),
        "delta": rows(WIDTH),
        "A": rates.to(device),
        "B": rows(STATES),
        "C": rows(STATES),
        "D": torch.ones(WIDTH, device=device),
        "z": rows(WIDTH),
        "delta_bias": torch.full((WIDTH,), -4.0, device=device),
        "delta_softplus": True,
    }
