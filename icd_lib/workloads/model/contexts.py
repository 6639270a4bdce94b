"""The judges of quality, and the context that the stages of a run get: by the judge of the model's family."""

from collections.abc import Callable

from icd_lib.models.families import find_family
from icd_lib.registry import Registry
from icd_lib.run.artifacts import Run
from icd_lib.workloads.model.context import Context

JUDGES = Registry(
    "judges",
    {
        "encoder": "icd_lib.workloads.model.context:EncoderContext",
        "language": "icd_lib.workloads.model.language:LanguageContext",
    },
)


def make_context(run: Run, progress: Callable[[str], None] = print) -> Context:
    """The context of the scenario's model family."""
    return JUDGES[find_family(run.scenario.get("model.family")).judge](run, progress)
