"""What changes a model so that it is smaller or faster: a file or a folder each, one row of `TRANSFORMS`."""

from collections.abc import Mapping

from icd_lib.registry import Registry

TRANSFORMS = Registry("transforms", {"sparsity": "icd_lib.transforms.sparsity.transform:TRANSFORM"})


def further_transforms(config: Mapping[str, object]) -> list:
    """The transforms beside sparsity that a scenario asks for by having their section."""
    rows = (TRANSFORMS[name] for name in TRANSFORMS if name != "sparsity")
    return [row for row in rows if row.options in config]
