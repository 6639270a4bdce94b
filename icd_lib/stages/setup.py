"""Stage 00: what this machine is, and what is laid out."""

from collections.abc import Callable

from icd_lib.measure.environment import fingerprint
from icd_lib.run.artifacts import Run
from icd_lib.workloads import kind_of, make_workload


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write setup/setup.json and what the workload keeps beside it; returns what setup.json holds."""
    report = {"environment": fingerprint(model=kind_of(run).torch), **make_workload(run, progress).describe()}
    run.write_json("setup/setup.json", report)
    return report
