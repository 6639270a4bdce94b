"""The six stages of a run; each notebook calls one of them and shows what it returns."""

import importlib

TABLE_KINDS = ("mock", "trace")


def run_stage(name: str, run, *given) -> dict:
    """Run the stage `name` ("setup", "graph", "solve", "measure", "validate") of the run's kind of workload.

    A model's stages lie in this package, those of a table of rows in `icd_lib.stages.table`; `given` goes to the stage.
    """
    package = f"{__name__}.table" if run.scenario.get("workload.kind") in TABLE_KINDS else __name__
    return importlib.import_module(f"{package}.{name}").run_stage(run, *given)
