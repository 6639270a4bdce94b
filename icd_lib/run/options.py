"""All options of a scenario: the sections, each declared beside its user, put together by name.

`python -m icd_lib.run.options` prints the JSON Schema of a scenario file, with the sections from outside that are here.
"""

import functools
import json
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import Field, create_model
from pydantic.json_schema import GenerateJsonSchema

from icd_lib.options import OMITTED, OneOf, Section, Seeded, check, option
from icd_lib.registry import Registry
from icd_lib.storage.devices import SUGGESTED

# Name of the section in a scenario -> its class.
OWN = {
    "workload": "icd_lib.workloads.options:WorkloadOptions",
    "model": "icd_lib.models.options:ModelOptions",
    "data": "icd_lib.data.options:DataOptions",
    "graph": "icd_lib.graph.options:GraphOptions",
    "solver": "icd_lib.solver.options:SolverOptions",
    "cost": "icd_lib.solver.options:CostOptions",
    "transform": "icd_lib.transforms.options:TransformOptions",
    "calibration": "icd_lib.codesign.options:CalibrationOptions",
    "codesign": "icd_lib.codesign.options:CodesignOptions",
    "deploy": "icd_lib.runtimes.options:DeployOptions",
    "measure": "icd_lib.measure.options:MeasureOptions",
    "gates": "icd_lib.experiment.options:GATES",
}
# Sections that a scenario has only if it gives them: they ask for something, and change no other scenario's hash.
ASKED = {
    "bridge": "icd_lib.bridge.options:BridgeOptions",
    "decode": "icd_lib.measure.options:DecodeOptions",
    "kv": "icd_lib.transforms.options:KvOptions",
    "masked": "icd_lib.transforms.masked.options:MaskedOptions",
    "quantization": "icd_lib.transforms.quantization.options:QuantizationOptions",
}
SECTIONS = Registry("sections", OWN | ASKED)


class RunOptions(Seeded):
    """What belongs to the run as a whole."""

    threads: int = option(0, "CPU threads; 0 takes all cores", low=0, high=4096)
    device: Annotated[str, OneOf(SUGGESTED, suggested=True)] | None = option(
        OMITTED,
        "what computes, and what the models are planned and timed for: cpu (also where it is left out), cuda, cuda:N, "
        "or auto: a GPU that has the memory free, else the CPU",
    )


def sections() -> dict[str, type[Section]]:
    """Name → section, those from outside last."""
    return dict(SECTIONS)


def scenario_options() -> type[Section]:
    """Everything that a scenario may say, as one section.

    A section of `ASKED` or from outside is absent unless the scenario gives it, so that it changes no other's hash.
    """
    return _assembled("Scenario", tuple(SECTIONS.items()))


def quick_options() -> type[Section]:
    """What a `quick` block may say: a quick run keeps the name, and so the folder, of its scenario."""
    return _assembled("Quick", tuple(SECTIONS.items()))


def check_config(given: Mapping, where: str = "", *, partial: bool = False, quick: bool = False) -> dict:
    """Return `given` as plain Python with defaults filled in (`partial` fills none), or raise `ConfigError`."""
    options = quick_options() if quick else scenario_options()
    return check.check_values(given, options, where, partial=partial, whole=scenario_options())


def unknown_key(path: str, key: str, valid: Iterable[str]) -> str:
    """The message for a key that is none of `valid`, with the nearest valid name anywhere in a scenario."""
    return check.unknown_key(path, key, valid, key_paths())


def key_paths() -> list[str]:
    """Every option as a dotted path, in order."""
    return check.key_paths(scenario_options())


def json_schema() -> dict:
    """The JSON Schema of a scenario file, for editors; there the name may be left out, it is the file's."""
    quick = Field(default=None, description="laid over the rest by --quick: the same stages, fewer samples")
    file = create_model("ScenarioFile", __base__=scenario_options(), quick=(quick_options(), quick))
    schema = file.model_json_schema(schema_generator=_Untitled)
    schema.pop("required")
    return schema | {"title": "A scenario of ICD"}


class _Untitled(GenerateJsonSchema):
    """Without a title for every key, which would only repeat it."""

    def field_title_should_be_set(self, schema) -> bool:
        return False


@functools.cache
def _assembled(name: str, rows: tuple[tuple[str, type[Section]], ...]) -> type[Section]:
    entries: dict = {"scenario": (str, option(..., "name of the scenario and of its folder in the output root"))}
    entries |= {key: (info.annotation, info) for key, info in RunOptions.model_fields.items()}
    for key, section in rows:
        entries[key] = (section, Field(default_factory=section))
        if key not in OWN:
            entries[key] = (section | None, option(OMITTED, section.__doc__ or ""))
    entries["stage_timeout_s"] = (float, option(3600.0, "seconds after which a stage is stopped", unit="s", above=0))
    if name == "Quick":
        del entries["scenario"]
    return create_model(name, __base__=Section, **entries)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
