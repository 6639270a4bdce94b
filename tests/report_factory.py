"""A small made-up run directory with every file that the report reads: two layers, round numbers."""

import json
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from icd_lib.metric import figure, not_measured

SIZES = {"ffn.0": 32, "heads.0": 4, "ffn.1": 32, "heads.1": 4}
ARMS = {"dense": 10.0, "linear": 9.0, "oneshot": 8.0, "iterative": 6.0, "dense_again": 10.0, "placebo": 9.9}
HOSTILE = '<script>alert("x")</script>'


def relative(value, half=0.02, n=20):
    return figure(value, "fraction", "measured", n=n, method="ratio of medians - 1", ci95=(value - half, value + half))


def write_run(folder: Path, *, ladder: bool = True, trained: bool = True, quick: bool = False) -> Path:
    """Write the files of a finished run into `folder` and return it."""
    parts = {
        "config.lock.json": lock(quick),
        "setup/setup.json": setup(quick),
        "graph/w.meta.json": {a: {"D": d, "nnz": 8, **META} for a, d in SIZES.items()},
        "graph/tables.json": tables(),
        "graph/sensitivity.json": [sensitivity(axis) for axis in SIZES],
        "graph/prediction.json": {"kind": "modelled", "dense_ms": 10.0, "frontier": frontier()},
        "measure/measure.json": measure(trained),
        "measure/samples.json": {"unit": "ms", "shapes": {"8x128": {a: [ms, ms + 0.1] for a, ms in ARMS.items()}}},
        "measure/ladder.json": ladder_entry() if ladder else None,
        "verdict.json": verdict(trained),
    }
    for mode in ("linear", "oneshot", "iterative"):
        parts[f"{mode}/solve.json"] = solve(mode, trained)
        for name in ("perm_before", "perm_after"):
            axes = {axis: {"D": d, "pi": list(range(d))[::-1], "hash": "0"} for axis, d in SIZES.items()}
            parts[f"{mode}/{name}.json"] = {"tag": "icd/v1", "seed": 0, "axes": axes}
    for rel, value in parts.items():
        path = folder / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")
    for axis, size in SIZES.items():
        dense = np.random.default_rng(0).random((size, size))
        graph = sp.csr_matrix(np.triu(dense, 1) + np.triu(dense, 1).T)
        for name in ("graph", "linear", "oneshot", "iterative"):
            sp.save_npz(folder / name / f"W.{axis}.npz", graph)
    return folder


META = {"kind": "co-activation", "unit": "bytes", "tokens": 100, "degree_mean": 1e6, "degree_cv": 0.5}


def lock(quick):
    gates = {"smoke": {"latency_rel": -0.1, "l2_pp": 5.0}, "strict": {"latency_rel": -0.2, "quality_drop_pp": 0.1}}
    config = {"codesign": {"quality_budget_pp": 0.1}, "transform": {"uniform": False}, "gates": gates}
    return {"scenario": "bert", "sha256": "ab" * 32, "quick": quick, "overrides": [], "config": config}


def setup(quick):
    counters = {"rapl": {"available": False, "reason": "no counter"}, "nvml": {"available": True}}
    cpu = {
        "model": f"CPU {HOSTILE}",
        "usable_cores": 2,
        "virtualised": True,
        "simd": ["avx2"],
        "caches": {"L1d": "32K"},
    }
    environment = {
        "cpu": {**cpu, "mhz": 2600, "governor": None},
        "memory_gb": 8,
        "load_average": [0, 0, 0],
        "threads": {"torch": 2},
        "os": "Linux",
        "python": "3.11",
        "packages": {"torch": "2"},
        "gpu": None,
        "counters": counters,
    }
    model = {"name": f"a/b {HOSTILE}", "revision": None, "sha256": "c" * 64, "licence": "mit", "source": "path"}
    model |= {"weights": "trained", "architecture": "BertModel", "parameters": 10, "parameter_bytes": 4_000_000}
    data = {"name": "bible", "provenance": {"name": "text"}, "splits": {"test": 10, "validation": 5}, "views": 2}
    return {
        "environment": environment,
        "model": model | {"shape": {"hidden_size": 8}},
        "data": data,
        "badges": ["quick run: rough"] if quick else [],
    }


def tables():
    curves = {
        "ffn": {"kept": [8, 32], "model_ms": [5.0, 10.0], "saved_ms_per_layer": [2.5, 0.0]},
        "heads": {"kept": [1, 4], "model_ms": [7.0, 10.0], "saved_ms_per_layer": [1.5, 0.0]},
    }
    return {"shape": [8, 128], "dense_ms": 10.0, "kind": "measured", "curves": curves}


def sensitivity(axis):
    kind = axis.partition(".")[0]
    return {"axis": axis, "kind": kind, "probe_kept": 3, "block_loss": 0.1, "output_error": 0.02, "rate": 0.2}


def frontier():
    fine = {"output_error": 0.1, "kept": SIZES}
    return [
        {"latency_rel": -0.1, "uneven": fine, "uniform": fine},
        {"latency_rel": -0.9, "uneven": {"reason": "out of reach"}, "uniform": {"reason": "out of reach"}},
    ]


def solve(mode, trained):
    terms = {"C": 0.4, "Q": 0.1, "R_align": 0.9, "R_stab": 0.0, "J": 0.5}
    pair = {"before": terms, "after": terms | {"J": 0.4}}
    judged = {"drop_pp": 0.05, "se_pp": 0.06, "ci95": [-0.07, 0.17], "cosine": 0.99, "kl": 0.01, "n_items": 10}
    none = {"drop_pp": 0.0, "se_pp": 0.0, "reason": "random weights"}
    entry = {"predicted_latency_rel": -0.38, "predicted_loss": 0.1, "validation": judged if trained else none}
    attempts = [
        {"strength": -0.4, "accepted": True, "reasons": [], **entry, "change": {"C": -0.1, "Q": 0.0, "J": -0.1}},
        {"strength": -0.6, "accepted": False, "reasons": [f"validation drop +1.8 pp {HOSTILE}"], **entry},
        {"strength": -0.8, "accepted": False, "reasons": ["the tables allow no plan"]},
    ]
    certificate = {"axis": "ffn.0", "kind": "ffn", "size": 32, "max_rel_error": 1e-15, "perm_hash": "d" * 64}
    return {
        "mode": mode,
        "accepted_strength": -0.4,
        "widths": {axis: size // 2 for axis, size in SIZES.items()},
        "plan": {"predicted_latency_rel": -0.38},
        "attempts": attempts,
        "objective": {"mean": pair, "axes": {axis: pair for axis in SIZES}},
        "solver": {"ffn.0": {"winner": "spectral", "timed_out": False}},
        "certificates": [] if mode == "oneshot" else [certificate],
    }


def measure(trained):
    def arm(ms):
        latency = figure(ms, "ms", "measured", n=20, method="median", ci95=(ms - 0.1, ms + 0.1))
        throughput = figure(1000 / ms, "tokens/s", "measured", n=20, method="tokens / median")
        tails = {"p50": ms, "p95": ms + 1, "p99": ms + 2}
        return {"latency_ms": latency | tails, "throughput_tokens_per_s": throughput, "vs_dense": relative(ms / 10 - 1)}

    drop = {"drop_pp": 0.04, "se_pp": 0.03, "ci95": [-0.02, 0.09], "dense_pct": 60.0, "pct": 59.96}
    compared = drop | {"per_task": {"book": drop}, "cosine": 0.99, "kl": 0.01, "n_items": 100, "method": "paired"}
    quality = {"dense": {"quality_pct": 60.0, "per_task_pct": {"book": 60.0}, "n_items": 100}}
    quality |= {mode: compared | {"other_domain_cosine": 0.98} for mode in ("linear", "oneshot", "iterative")}
    modes = ("dense", "linear", "oneshot", "iterative")
    memory = not_measured("MB", f"no meter {HOSTILE}")
    size = {"parameter_bytes": 4_000_000, "flops": 10**9, "widths": SIZES, "tiles": {"ffn": 4, "heads": 8}}
    steps = [
        {"step": "dense", "latency_rel": relative(0.0), "note": "A/A control", "validation": None},
        {"step": "removal", "latency_rel": relative(-0.4), "note": "the result", "validation": drop | {"cosine": 0.9}},
    ]
    if not trained:
        quality = {"reason": "random weights"}
        steps = [{key: value for key, value in step.items() if key != "validation"} for step in steps]
    return {
        "latency": {"threads": 2, "shapes": {"8x128": {name: arm(ms) for name, ms in ARMS.items()}}},
        "quality": quality,
        "equality": {},
        "sizes": {mode: size | {"peak_memory_mb": memory} for mode in modes},
        "energy": {mode: not_measured("J/token", "no counter") for mode in modes},
        "l2_hit_pct": not_measured("%", "no GPU"),
        "attribution": steps,
        "controls": {"placebo": "a random layout"},
    }


def ladder_entry():
    def arm(ms, gain=None):
        found = {"latency_ms": figure(ms, "ms", "measured", n=5, method="median", ci95=(ms - 1, ms + 1))}
        found["max_abs_error"] = figure(1e-6, "1", "measured", n=1, method="largest difference")
        return found | ({"vs_baseline": relative(gain)} if gain else {})

    shapes = {"8x128": {"arms": {"dense": arm(10.0), "iterative": arm(6.0, -0.4)}, "samples_ms": {}}}
    runtimes = {
        "eager": {"status": "measured", "label": "eager fp32", "setup_s": {}, "shapes": shapes},
        "openvino": {"status": "not_measured", "label": "OpenVINO", "reason": f"not installed {HOSTILE}"},
    }
    return {"baseline": "dense", "threads": 2, "runtimes": runtimes}


def verdict(trained):
    drop = figure(0.04, "pp", "measured", n=100, method="paired", ci95=(-0.02, 0.09)) | {"se_pp": 0.03}
    drop = drop if trained else not_measured("pp", "random weights")

    def against(value):
        return {"latency_rel": relative(value), "shapes": {"8x128": relative(value)}, "quality_drop_pp": drop}

    def judged(status, checks, bounds=None):
        return {"status": status, "checks": checks, "bounds": bounds or {}, "reasons": {}}

    missing = {"l2_pp": not_measured("pp", "no GPU"), "ept_rel": not_measured("fraction", "no counter")}
    word = "pass" if trained else "not_measured"
    return {
        "same_transform": against(-0.3) | {"max_rel_error": {"float32": 1e-7, "float64": 1e-15}},
        "same_quality": against(-0.33) | missing,
        "vs_dense": against(-0.4),
        "vs_oneshot": against(-0.25),
        "placebo": {"8x128": relative(-0.39)},
        "aa_control": {"shapes": {"8x128": relative(0.0)}, "contains_zero": {"8x128": True}},
        "cost": {"delta_c_rel": -0.1, "delta_q": 0.1, "delta_j": -0.1},
        "determinism": {"pi_hash_equal": True, "w_hash_equal": True, "max_metric_drift_rel": 0.0},
        "prediction": {"iterative": {"predicted_latency_rel": -0.38, "measured": relative(-0.4)}},
        "badges": [],
        "smoke": judged("partial", {"latency_rel": "pass", "l2_pp": "not_measured"}),
        "strict": judged(
            "partial", {"latency_rel": "pass", "quality_drop_pp": word}, {"quality_drop_pp": "excludes_budget"}
        ),
    }
