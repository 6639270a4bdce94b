"""The six stages of a run; each notebook calls one of them and shows what it returns."""

import importlib
from contextlib import AbstractContextManager, nullcontext

from icd_lib.models.shapes import SHAPES
from icd_lib.workloads import kind_of

NAMES = ("setup", "graph", "solve", "measure", "validate")


def run_stage(name: str, run, *given) -> dict:
    """Run the stage "setup", "graph", "solve", "measure" or "validate"; `given` goes to it.

    It has as many of torch's threads as the scenario says, for as long as it takes.
    """
    stage = importlib.import_module(f"{__name__}.{name}").run_stage
    with _threads(run), _memory(run, name):
        return stage(run, *given)


def stage_modules(run) -> list[str]:
    """What the stages of the run import, for a process that imports ahead of them."""
    kind = kind_of(run)
    modules = [*(f"{__name__}.{name}" for name in NAMES), *kind.preload]
    family = run.scenario.get("model.family")
    if family and kind.torch:
        types = {shape.config["model_type"]: None for shape in SHAPES.values() if shape.family == family}
        modules += [f"transformers.models.{name}.modeling_{name}" for name in types]
    return [*modules, "icd_lib.report", "icd_lib.stages.report"]


def _memory(run, name: str) -> AbstractContextManager:
    """A GPU that runs out of memory is told with the cure."""
    if not kind_of(run).torch:
        return nullcontext()
    from icd_lib.storage.devices import telling_of_memory

    return telling_of_memory(f"the stage {name} computed", "take fewer texts (data.calibration_texts)")


def _threads(run) -> AbstractContextManager:
    if not kind_of(run).torch:
        return nullcontext()
    from icd_lib.runtimes.threads import torch_threads

    return torch_threads(run.scenario.get("threads"))
