"""The entrance to the stages: on whose threads they run."""

import os

import pytest
import torch

from icd_lib import stages
from icd_lib.run.artifacts import open_run
from icd_lib.stages import graph
from icd_lib.workloads.model.contexts import make_context


@pytest.fixture(autouse=True)
def two_threads():
    """What the user has set."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("threads", "expected"), [(3, 3), (0, len(os.sched_getaffinity(0)))])
def test_a_models_stage_has_the_scenarios_threads_and_torch_gets_its_own_back(tmp_path, monkeypatch, threads, expected):
    def stage(run, progress):
        return {"threads": torch.get_num_threads(), "told": progress}

    monkeypatch.setattr(graph, "run_stage", stage)
    found = stages.run_stage("graph", open_run("bert", [f"threads={threads}"], out=tmp_path), "line")
    assert found == {"threads": expected, "told": "line"} and torch.get_num_threads() == 2


def test_a_tables_stage_leaves_torch_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "run_stage", lambda run: {"threads": torch.get_num_threads()})
    assert stages.run_stage("graph", open_run("mock", ["threads=3"], out=tmp_path)) == {"threads": 2}


def test_a_context_leaves_torch_alone(tmp_path):
    make_context(open_run("bert", ["threads=3"], out=tmp_path))
    assert torch.get_num_threads() == 2
