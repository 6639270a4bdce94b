"""Stage 02: one mode of the co-design loop."""

from collections.abc import Callable

from icd_lib.run.artifacts import Run
from icd_lib.workloads import make_workload


def run_stage(run: Run, mode: str, progress: Callable[[str], None] = print) -> dict:
    """Solve `mode`, write <mode>/*; returns what <mode>/solve.json holds."""
    return make_workload(run, progress).solve(mode)
