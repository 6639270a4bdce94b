"""docs/extend/runtime.md: its module keeps the contract of runtimes, and its command plans a run."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from icd_lib.registry import VARIABLE
from tests.docs.test_extend import FOLDER, blocks

pytestmark = pytest.mark.wide

ROOT = FOLDER.parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python with the page's module on its path, named as an extension."""
    folder = tmp_path_factory.mktemp("extension")
    (module,) = blocks("runtime.md", "python")
    (folder / "autocast.py").write_text(module, encoding="utf-8")
    env = os.environ | {VARIABLE: "autocast", "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}

    def python(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)

    return python


def test_it_keeps_the_contract(run):
    contract = "tests/runtimes/test_contract.py"
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "autocast", contract)
    assert done.returncode == 0 and re.search(r"^9 passed", done.stdout, re.MULTILINE), done.stdout


def test_its_command_plans_a_run_and_needs_the_extension(run, tmp_path, monkeypatch):
    text = (FOLDER / "runtime.md").read_text(encoding="utf-8")
    (command,) = re.findall(rf"^{VARIABLE}=autocast python (run_all.*)$", text, re.MULTILINE)
    words = [*shlex.split(command), "--dry-run", "--out", str(tmp_path / "out")]
    done = run(*words)
    assert done.returncode == 0 and "03_measure" in done.stdout, done.stderr
    monkeypatch.delenv(VARIABLE, raising=False)
    alone = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert alone.returncode == 2 and "autocast" in alone.stderr
