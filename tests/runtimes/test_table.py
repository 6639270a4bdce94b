"""The table of runtimes: names without torch, and a runtime from outside that takes part like the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from report_factory import write_run

from icd_lib.errors import ConfigError
from icd_lib.registry import VARIABLE
from icd_lib.report import measure_figures, measure_tables
from icd_lib.report.results import Results
from icd_lib.runtimes import BRIDGE, CUDA, OWN, REFERENCE, RUNTIMES

pytestmark = pytest.mark.wide

ROOT = Path(__file__).parents[2]
NAMES = "import sys; from icd_lib.runtimes import RUNTIMES; print(*RUNTIMES, 'torch' in sys.modules)"
OUTSIDE = """
import json
from icd_lib.measure.ladder import measure_ladder
from icd_lib.run.scenario import load_scenario
from icd_lib.storage.record_json import as_json
from tests.tiny_encoders import batch, prune, tiny_bert

plain, chosen = load_scenario("bert"), load_scenario("bert", overrides=["measure.runtimes=[eager, toy]"])
assert "toy" not in plain.get("measure.runtimes"), "what is installed changes no other scenario"
models = {"dense": tiny_bert(), "iterative": prune(tiny_bert())}
names = chosen.get("measure.runtimes")
ladder = measure_ladder(models, [batch(2, 12)], runtimes=names, repeats=3, warmup=1, resamples=20)
ladder["fastest"] = {"runtime": "toy", "quality": None, "reason": "a test"}
print(json.dumps(as_json(ladder)))
"""


def run_python(code: str, **environment) -> str:
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"} | environment
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_names_cost_no_import():
    assert run_python(NAMES) == " ".join([*OWN, *BRIDGE, *CUDA, "False"])


def test_the_reference_is_a_row_and_an_unknown_one_is_named():
    assert REFERENCE in OWN and list(RUNTIMES)[: len(OWN)] == list(OWN)
    with pytest.raises(ConfigError, match="'openvin' is none of the runtimes; did you mean 'openvino'"):
        RUNTIMES["openvin"]


def test_a_runtime_from_outside_is_timed_and_stands_on_the_pages(tmp_path):
    ladder = json.loads(run_python(OUTSIDE, **{VARIABLE: "tests.extend.toy_runtime"}))
    entry = ladder["runtimes"]["toy"]
    assert entry["status"] == "measured" and entry["label"] == "A toy, bf16"
    for figures in entry["shapes"]["2x12"]["arms"].values():
        assert 1e-5 < figures["max_abs_error"]["value"] < 0.15 and "value" in figures["vs_eager"]

    write_run(tmp_path / "bert")
    (tmp_path / "bert" / "measure" / "ladder.json").write_text(json.dumps(ladder))
    results = Results.load(tmp_path / "bert")
    rows = measure_tables.ladder(results).rows
    assert [row[0] for row in rows] == ["PyTorch eager, fp32"] * 2 + ["A toy, bf16"] * 2
    assert "toy dense" in measure_figures.runtime_ladder(results).alt
