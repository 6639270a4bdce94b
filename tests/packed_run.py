"""A small finished run: generated samples, and every figure and verdict computed from them as the stages do."""

from pathlib import Path

import gpu_factory
import numpy as np
import report_factory as made_up

from icd_lib.codesign.layouts import perm_record
from icd_lib.experiment.cost import cost_change, cost_figures
from icd_lib.experiment.gates import judge
from icd_lib.experiment.verdict import contains_zero
from icd_lib.measure.comparison import compare_arms, latency_entry
from icd_lib.metric import not_measured
from icd_lib.run.artifacts import Run, open_run
from icd_lib.run.manifest import write_manifest
from icd_lib.storage.atomic import to_json

ARMS = {"dense": 10.0, "linear": 9.0, "oneshot": 8.0, "iterative": 6.0, "dense_again": 10.0, "placebo": 9.9}
ARMS |= {"same_transform": 9.5}
OPTIONS = ["measure.bootstrap=200", "measure.repeats=12"]


def write_finished_run(out: Path, name: str = "bert", *, gpu: bool = False) -> Run:
    """Write a finished run of scenario `name` under `out`; gpu: with what a GPU's counters said."""
    run = open_run(name, OPTIONS, out=out)
    settings = {"seed": run.scenario.get("seed"), "resamples": run.scenario.get("measure.bootstrap")}
    rng = np.random.default_rng(0)
    labels = [f"{batch}x{length}" for batch, length in run.scenario.get("measure.shapes")]
    samples = {x: {arm: (ms * rng.lognormal(0, 0.01, 12)).tolist() for arm, ms in ARMS.items()} for x in labels}
    run.write_json("measure/samples.json", {"unit": "ms", "order": "one per round", "shapes": samples})
    run.write_json(
        "setup/setup.json", {"model": made_up.setup(False)["model"] | {"name": "a/b"}, "badges": [], "environment": {}}
    )
    for mode in ("linear", "oneshot", "iterative"):
        run.write_json(f"{mode}/solve.json", made_up.solve(mode, True))
        run.write_json(f"{mode}/perm_after.json", perm_record({"ffn.0": rng.permutation(32)}, 0))
    report = made_up.measure(True)
    report["latency"]["shapes"] = {
        x: {arm: latency_entry(ms, arms["dense"], 1024, **settings) for arm, ms in arms.items()}
        for x, arms in samples.items()
    }
    if gpu:
        report |= gpu_factory.counters()
        for rel, value in gpu_factory.files().items():
            run.path(rel).write_text(value if isinstance(value, str) else to_json(value))
    report["deployment"] = deployment(samples, report["latency"]["shapes"], settings)
    run.write_json("measure/measure.json", report)
    for arm in ("dense", "linear", "oneshot", "iterative"):
        run.write_json(f"{arm}/metrics.json", metrics(run, arm, report))
    run.write_json("verdict.json", verdict(run, samples, settings, report if gpu else None))
    run.path("03_measure.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    run.path("report.html").write_text("<!doctype html><title>r</title><p>10 ms")
    run.path("report.csv").write_text("a,b\n1,2\n")
    run.path("iterative", "model", "model.safetensors").write_bytes(b"weights of this run")
    run.log("03_measure", status="done")
    write_manifest(run)
    return run


def deployment(samples: dict, shapes: dict, settings: dict) -> list[dict]:
    """Two steps at the first shape, the second held against the first."""
    label = next(iter(shapes))

    def step(arm: str, *others: str) -> dict:
        first, *rest = (compare_arms(samples, arm, other, **settings)[label] for other in ("dense", *others))
        told = {"step": arm, "arm": arm, "place": "eager", "note": "", "validation": {"reason": "not judged"}}
        alone = [{"other": other, "shows": "S", "latency_rel": item} for other, item in zip(others, rest, strict=True)]
        return told | {"latency_ms": shapes[label][arm].latency_ms, "vs_eager": first, "against": alone}

    return [step("dense"), step("iterative", "same_transform")]


def metrics(run: Run, arm: str, report: dict) -> dict:
    latency = vars(next(iter(report["latency"]["shapes"].values()))[arm])
    figures = {key: not_measured("%", "no counter") for key in ("l2_hit_pct", "energy_j_per_token", "quality_pct")}
    named = {"run_id": "x", "scenario": run.scenario.name, "mode": arm, "model": {}, "environment": {}}
    sizes = {"peak_memory_mb": not_measured("MB", "no meter"), "parameter_bytes": 4, "objective": None}
    changes = {"latency_rel": latency["vs_dense"], "quality_drop_pp": not_measured("pp", "no test")}
    return named | figures | sizes | latency | {"vs_dense": changes, "config_sha256": run.scenario.sha256}


def verdict(run: Run, samples: dict, settings: dict, on_gpu: dict | None) -> dict:
    found = made_up.verdict(True)
    for key, other in (
        ("same_transform",) * 2,
        ("same_quality", "linear"),
        ("vs_dense", "dense"),
        ("vs_oneshot", "oneshot"),
    ):
        shapes = compare_arms(samples, "iterative", other, **settings)
        found[key] |= {"shapes": shapes, "latency_rel": next(iter(shapes.values()))}
        if on_gpu and "l2_pp" in found[key]:
            found[key] |= gpu_factory.changes(on_gpu, other)
    found["placebo"] = compare_arms(samples, "iterative", "placebo", **settings)
    again = compare_arms(samples, "dense_again", "dense", **settings)
    found["aa_control"] = {"shapes": again, "contains_zero": contains_zero(again)}
    found["cost"] = cost_change(run)
    judged = {key: found["same_quality"][key] for key in ("latency_rel", "l2_pp", "ept_rel")}
    judged |= {"quality_drop_pp": found["vs_dense"]["quality_drop_pp"], **cost_figures(found["cost"])}
    return found | {gate: judge(run.scenario.get(f"gates.{gate}"), judged) for gate in ("smoke", "strict")}
