"""A small mock scenario whose stages run in a second each, and runs of it."""

from icd_lib import stages
from icd_lib.run.artifacts import Run, open_run

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
