"""The six stages of a run; each notebook calls one of them and shows what it returns."""

import importlib
from contextlib import AbstractContextManager, nullcontext

from icd_lib.models.shapes import SHAPES

TABLE_KINDS = ("mock", "trace")


def run_stage(name: str, run, *given) -> dict:
    """Run the stage "setup", "graph", "solve", "measure" or "validate" of a model or of a table; `given` goes to it.

    A model's stage has as many of torch's threads as the scenario says, for as long as it takes.
    """
    stage = importlib.import_module(f"{_package(run)}.{name}").run_stage
    with _threads(run):
        return stage(run, *given)


def stage_modules(run) -> list[str]:
    """What the stages of the run's kind of workload import, for a process that imports ahead of them."""
    modules = [f"{_package(run)}.{name}" for name in ("setup", "graph", "solve", "measure", "validate")]
    family = run.scenario.get("model.family")
    if family and _package(run) == __name__:
        types = {shape.config["model_type"]: None for shape in SHAPES.values() if shape.family == family}
        modules += [f"transformers.models.{name}.modeling_{name}" for name in types]
    return [*modules, "icd_lib.report", "icd_lib.stages.report"]


def _threads(run) -> AbstractContextManager:
    if _package(run) != __name__:
        return nullcontext()  # a table is read by one thread, without torch
    from icd_lib.runtimes.threads import torch_threads

    return torch_threads(run.scenario.get("threads"))


def _package(run) -> str:
    """A model's stages lie in this package, those of a table of rows in `icd_lib.stages.table`."""
    return f"{__name__}.table" if run.scenario.get("workload.kind") in TABLE_KINDS else __name__
