"""All that can come from outside at once: family, transform, runtime, arm and metric through the six notebooks."""

import csv
import json
import os
import subprocess
import sys

import pytest

from icd_lib.paths import project_root
from icd_lib.registry import VARIABLE

TOYS = ("family", "transform", "runtime", "arm", "metric")
SCENARIO = """# Toys only
model: {family: toy, weights: random, shape: toy-tiny}
toy: {bits: 6, group: 4}
transform: {axes: [ffn], tile: 4, distill_steps: 0}
data:
  {seen: [news, docstrings], selection: [verses, manual], unseen: [products, glosses], calibration_texts: 40,
  distill_texts: 0, validation_items: 60, test_items: 120}
graph: {nnz_cap: 5000}
solver: {refine_steps: 20}
codesign: {strengths: [-0.02], max_rounds: 1, latency_target_rel: -0.05}
measure: {shapes: [[8, 64]], repeats: 4, max_repeats: 4, warmup: 1, bootstrap: 200, runtimes: [eager, toy]}
gates: {smoke: {latency_rel: null, l2_pp: null, ept_rel: null, toy_arms: 3}}
"""
pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """Run a command of this project with the toys; the folder of their run."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "toys.yaml").write_text(SCENARIO)
    names = ",".join(f"tests.extend.toy_{name}" for name in TOYS)
    environment = os.environ | {VARIABLE: names, "PYTHONPATH": str(project_root())}

    def run(*words):
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=project_root(), env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("run_all.py", "--scenario", folder / "toys.yaml", "--out", folder)
    return run, folder / "toys"


def test_toys_go_through_all_notebooks_to_the_report_and_the_judge(outside):
    run, folder = outside

    def read(rel):
        return json.loads((folder / rel).read_text())

    assert read("setup/setup.json")["model"]["architecture"] == "ToyModel"
    did = read("iterative/transform_meta.json")["transforms"]
    assert [entry["name"] for entry in did] == ["sparsity", "toy"]
    ladder = read("measure/ladder.json")["runtimes"]
    assert {name: entry["status"] for name, entry in ladder.items()} == {"eager": "measured", "toy": "measured"}
    verdict = read("verdict.json")
    assert verdict["vs_toy"]["latency_rel"]["kind"] == "measured"
    assert verdict["smoke"]["checks"]["toy_arms"] == "pass"
    page = (folder / "report.html").read_text()
    for words in ("A toy, bf16", "a copy of iterative", "iterative vs its copy", "arms that were timed"):
        assert words in page, words
    metrics = {row["metric"] for row in csv.DictReader((folder / "report.csv").open())}
    assert {"vs_toy.latency_rel", "toy_arms", "toy.latency_ms"} <= metrics
    told = run("-m", "icd_lib.validate", folder)
    assert "iterative vs its copy" in told and "arms that were timed" in told
