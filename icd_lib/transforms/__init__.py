"""What changes a model so that it is smaller or faster: a file or a folder each, one row of `TRANSFORMS`."""

from collections.abc import Mapping

from icd_lib.errors import ConfigError
from icd_lib.registry import Registry

TRANSFORMS = Registry(
    "transforms",
    {
        "sparsity": "icd_lib.transforms.sparsity.transform:TRANSFORM",
        "masked": "icd_lib.transforms.masked.transform:TRANSFORM",
        "quantization": "icd_lib.transforms.quantization.transform:TRANSFORM",
    },
)


def further_transforms(config: Mapping[str, object]) -> list:
    """The transforms beside sparsity that a scenario asks for by having their section."""
    asked = (name for name in TRANSFORMS if name != "sparsity" and (name in config or name not in TRANSFORMS.own))
    rows = (TRANSFORMS[name] for name in asked)  # the project's own are named as their sections are: load no other
    return [row for row in rows if row.options in config]


def transforms_of(config: Mapping) -> tuple:
    """What is done to a run's model, in order: sparsity, then the others; or the one that comes with it, alone.

    Sparsity is left out where nothing may be removed and something else is done. `quantization.order` says which of the
    two is first. Raises `ConfigError` for an order that does not name both once, and where a transform that is given
    goes with another one, or with what changes the function.
    """
    further = further_transforms(config)
    given = [row for row in further if row.is_given]
    if not given:
        first = () if further and not removes_anything(config) else (TRANSFORMS["sparsity"],)
        return _ordered((*first, *further), config.get("quantization"))
    if len(further) > 1:
        others = ", ".join(row.options for row in further if row is not given[0])
        raise ConfigError(
            f"{given[0].options} runs alone, and the scenario also has the section {others}; leave one out"
        )
    for key, off in (("distill_steps", 0), ("head_dim", None)):
        if config["transform"][key] != off:
            raise ConfigError(
                f"transform.{key} is {config['transform'][key]}, and would change what the masked model computes; set "
                f"it to {'null' if off is None else off}"
            )
    return tuple(given)


def removes_anything(config: Mapping) -> bool:
    """Whether an element may go: there is a strength, a latency or a rate to remove for."""
    codesign, rate = config.get("codesign"), config.get("transform", {}).get("rate")
    return codesign is None or any([*codesign["strengths"], codesign["latency_target_rel"], rate])


def is_given(config: Mapping) -> bool:
    """Whether a run's model comes with what is done to it (`Transform.is_given`)."""
    return any(row.is_given for row in further_transforms(config))


def applying(config: Mapping, precision: str) -> Mapping:
    """The configuration, without a quantization that it asks for in a precision in which models are not deployed."""
    section = config.get("quantization")
    if section is None or section["only_in"] in (None, precision):
        return config
    return {key: value for key, value in config.items() if key != "quantization"}


def _ordered(rows: tuple, section: Mapping | None) -> tuple:
    """The transforms in the order of `quantization.order`, what it does not name last."""
    if section is None:
        return rows
    order = tuple(section["order"])
    if sorted(order) != ["quantization", "sparsity"]:
        raise ConfigError(
            f"quantization.order names each transform once: [sparsity, quantization] or the reverse; got {list(order)}"
        )
    first = [row for name in order for row in rows if row.name == name]
    return (*first, *(row for row in rows if row.name not in order))
