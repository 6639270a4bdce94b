"""The family of a scenario chooses who judges, and a family from outside takes part like the others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from icd_lib.registry import VARIABLE
from icd_lib.run.artifacts import open_run
from icd_lib.workloads.model.context import EncoderContext
from icd_lib.workloads.model.contexts import make_context
from icd_lib.workloads.model.language import LanguageContext

pytestmark = pytest.mark.wide

ROOT = Path(__file__).parents[2]
OUTSIDE = """
import sys
from icd_lib.models.families import find_adapter
from icd_lib.run.artifacts import open_run
from icd_lib.stages import stage_modules
from icd_lib.workloads.model.contexts import make_context

changes = ["threads=1", "model.family=toy", "model.weights=random", "model.shape=toy-tiny"]
run = open_run("bert", changes, out=sys.argv[1])
assert "transformers.models.toy.modeling_toy" in stage_modules(run)
context = make_context(run)
print(type(context).__name__, type(context.model).__name__, [a.name for a in find_adapter(context.model).axes()])
"""


@pytest.mark.parametrize(
    ("scenario", "kind"), [("bert", EncoderContext), ("mamba", LanguageContext), ("smollm2", LanguageContext)]
)
def test_the_family_chooses_the_context(tmp_path, scenario, kind):
    context = make_context(open_run(scenario, ["threads=1"], out=tmp_path))
    assert type(context) is kind and context.judging == "unseen" and context.selecting == "selection"


def test_a_family_from_outside_takes_part(tmp_path):
    env = os.environ | {VARIABLE: "tests.extend.toy_family", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE, str(tmp_path)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split("\n")[-2:] == ["EncoderContext ToyModel ['ffn.0', 'ffn.1']", ""], done.stderr
