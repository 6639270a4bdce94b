"""Stage 01: axes, access graphs, and what this machine and the workload say before anything changes."""

from collections.abc import Callable

from icd_lib.run.artifacts import Run
from icd_lib.workloads import make_workload


def run_stage(run: Run, progress: Callable[[str], None] = print) -> dict:
    """Write graph/*; returns {"axes", "graphs"} and what the workload measured, by name."""
    workload = make_workload(run, progress)
    certificates = workload.certify()
    run.write_json("graph/axes.json", certificates)
    graphs = workload.write_graphs()
    run.write_json("graph/w.meta.json", graphs)
    return {"axes": certificates, "graphs": graphs, **workload.learn()}
