"""The families of models, and the one that a model or a name belongs to. Names cost no import; rows load torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icd_lib.errors import ConfigError
from icd_lib.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from icd_lib.models.adapter import Adapter
    from icd_lib.models.family import Family

FAMILIES = Registry(
    "families",
    {name: f"icd_lib.models.families.{name}:FAMILY" for name in ("bert", "mamba", "llama")},
)
DEFAULT_FAMILY = "bert"


def find_family(name: str) -> Family:
    """The row of that name, or `ConfigError`."""
    if name not in FAMILIES:
        raise ConfigError(f"model.family '{name}' is unknown; it takes one of {sorted(FAMILIES)}")
    return FAMILIES[name]


def family_of(model: nn.Module) -> Family | None:
    """The first family that knows the model's architecture."""
    return next((family for family in FAMILIES.values() if family.matches(model)), None)


def find_adapter(model: nn.Module) -> Adapter:
    """The adapter of the model's family, or `ConfigError`."""
    family = family_of(model)
    if family is None:
        why = why_refused(getattr(getattr(model, "config", None), "model_type", None))
        raise ConfigError(f"no adapter knows the architecture {type(model).__name__}{why}; supported: {supported()}")
    return family.adapter(model)


def why_refused(model_type: object) -> str:
    """Why a model_type that looks like a family's is not read, to be put behind its name; empty where none says."""
    why = next((row.refused[name] for row in FAMILIES.values() if (name := str(model_type)) in row.refused), None)
    return f" ({why})" if why else ""


def supported() -> str:
    """All that is supported, in words."""
    return " and ".join(row.described for row in FAMILIES.values())


def own_class(name: str) -> type | None:
    """The model class of that name which a family brings itself, because Transformers does not have it."""
    return next((row.classes[name] for row in FAMILIES.values() if name in row.classes), None)


def labels(rows: Iterable[Family]) -> str:
    """The families in words: "the BERT family and Mamba, Mamba-2"."""
    return " and ".join(row.label for row in rows)
