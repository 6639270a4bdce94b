"""What changes a model so that it is smaller or faster: a file or a folder each, one row of `TRANSFORMS`."""

from collections.abc import Mapping

from icd_lib.errors import ConfigError
from icd_lib.registry import Registry

TRANSFORMS = Registry(
    "transforms",
    {
        "sparsity": "icd_lib.transforms.sparsity.transform:TRANSFORM",
        "quantization": "icd_lib.transforms.quantization.transform:TRANSFORM",
    },
)


def further_transforms(config: Mapping[str, object]) -> list:
    """The transforms beside sparsity that a scenario asks for by having their section."""
    rows = (TRANSFORMS[name] for name in TRANSFORMS if name != "sparsity")
    return [row for row in rows if row.options in config]


def all_transforms(config: Mapping[str, object]) -> tuple:
    """Sparsity and the further ones in the order they are done: `quantization.order` says which of the two is first.

    Raises `ConfigError` for an order that does not name both once.
    """
    rows = (TRANSFORMS["sparsity"], *further_transforms(config))
    section = config.get("quantization")
    if section is None:
        return rows
    order = tuple(section["order"])
    if sorted(order) != ["quantization", "sparsity"]:
        raise ConfigError(
            f"quantization.order names each transform once: [sparsity, quantization] or the reverse; got {list(order)}"
        )
    first = [row for name in order for row in rows if row.name == name]
    return (*first, *(row for row in rows if row.name not in order))
