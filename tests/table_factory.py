"""A small mock scenario whose stages run in a second each, and runs of it."""

import contextlib
import dataclasses

import pytest

from icd_lib import stages
from icd_lib.run.artifacts import Run, open_run
from icd_lib.workloads.rows import solve

SMALL = [
    "workload.rows=2048",
    "workload.burst=100",
    "workload.events=4000",
    "solver.refine_steps=20",
    "calibration.pilots=8",
    "calibration.repeats=3",
    "codesign.max_rounds=1",
    "measure.repeats=6",
    "measure.max_repeats=6",
    "measure.warmup=1",
    "measure.bootstrap=200",
]


def silent(line):
    pass


def open_small(folder, *overrides, seed=None) -> Run:
    """A mock run in `folder` that has not begun."""
    return open_run("mock", [*SMALL, *overrides], out=folder, seed=seed)


def run_stages(run: Run, *names: str) -> dict:
    """Run stages by name ("solve[linear]" for a mode); returns what the last one returned."""
    result = {}
    for name in names:
        stage, _, mode = name.removesuffix("]").partition("[")
        result = stages.run_stage(stage, run, *([mode] if mode else []), silent)
    return result


@contextlib.contextmanager
def without_veto():
    """The trial of a layout is timed for real but refuses nothing: a noisy moment must not decide what is tested."""
    timed = solve.try_out

    def trial(*arms):
        found = timed(*arms)
        return dataclasses.replace(found, ci95=(min(found.ci95[0], 0.0), found.ci95[1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "try_out", trial)
        yield


@contextlib.contextmanager
def vetoed():
    """The trial of a new layout refuses it, as a rise of the time does."""
    timed = solve.try_out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "try_out", lambda *arms: dataclasses.replace(timed(*arms), value=0.2, ci95=(0.1, 0.3)))
        yield
