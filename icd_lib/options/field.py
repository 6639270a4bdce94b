"""An option read off its declaration: which values it takes, and how that is said."""

import functools
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from icd_lib.options.option import OMITTED, OneOf, plain

REQUIRED = object()  # default of an option that has to be given

_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", list: "a list"}
_BOUNDS = {"ge": "low", "gt": "above", "le": "high", "min_length": "least", "max_length": "most"}  # pydantic's: ours


@dataclass(frozen=True)
class Field:
    """One option: its type, default, bounds and meaning; `item` describes the elements of a list.

    kind: int, float, str, bool, list, or the class of a section that lies within.
    """

    kind: type
    default: Any = REQUIRED
    doc: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: Iterable[str] | None = None
    nullable: bool = False
    item: "Field | None" = None
    least: int = 0
    most: int | None = None
    unit: str | None = None
    is_path: bool = False  # a relative path is made absolute when the scenario is read
    also: str | None = None  # another name that it may be given by
    also_means: Mapping[bool, str] | None = None  # where that takes true or false: what each of them is here

    @property
    def section(self) -> type[BaseModel] | None:
        """The section that this is the name of; None of an option."""
        return self.kind if issubclass(self.kind, BaseModel) else None

    def takes(self) -> str:
        """Say in words which values are accepted.

        >>> Field(int, 0, low=0).takes()
        'an integer, at least 0'
        """
        words = _WORDS[self.kind]
        if self.choices is not None:
            words = "one of " + ", ".join(map(str, self.choices))
        if self.item is not None:
            if self.least == self.most:
                words = f"a list of {self.least}"
            elif self.least:
                words += f" of at least {self.least}"
            words += f", each {self.item.takes()}"
        limits = [f"at least {self.low:.12g}"] if self.low is not None else []
        limits += [f"more than {self.above:.12g}"] if self.above is not None else []
        limits += [f"at most {self.high:.12g}"] if self.high is not None else []
        return ", ".join([words, *limits]) + (" (or null)" if self.nullable else "")


@functools.cache
def fields(section: type[BaseModel]) -> dict[str, Field]:
    """Name → option of a section, in order; `TypeError` where an option has a type that none can have."""
    return {name: _field(f"{section.__name__}.{name}", info) for name, info in section.model_fields.items()}


@functools.cache
def aliases(section: type[BaseModel]) -> dict[str, str]:
    """Other name → name, of the options of a section that have one."""
    return {field.also: name for name, field in fields(section).items() if field.also}


def _field(name: str, info: FieldInfo) -> Field:
    notes = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    default = REQUIRED if info.is_required() else plain(info.get_default(call_default_factory=True))
    if notes.get("omitted"):
        default = OMITTED
    more = {"doc": info.description or "", "unit": notes.get("unit"), "is_path": bool(notes.get("is_path"))}
    more |= {"also": notes.get("also"), "also_means": notes.get("also_means")}
    return _typed(name, info.annotation, info.metadata, default=default, **more)


def _typed(name: str, annotation: Any, metadata: Iterable, **more) -> Field:
    """The field of a type such as `int`, `Annotated[str, OneOf(…)] | None` or `tuple[float, ...]`."""
    kind, told, nullable = _unwrapped(annotation, metadata)
    found: dict[str, Any] = {
        ours: getattr(n, theirs) for n in told for theirs, ours in _BOUNDS.items() if hasattr(n, theirs)
    }
    found["choices"] = next((names for names in told if isinstance(names, OneOf) and not names.suggested), None)
    inner = get_args(kind)
    if get_origin(kind) is Literal and all(isinstance(name, str) for name in inner):
        kind, found["choices"] = str, inner
    elif get_origin(kind) is tuple and inner[1:] == (...,):
        kind, found["item"] = list, _typed(f"{name}[]", inner[0], ())
    known = isinstance(kind, type) and (kind in _WORDS or issubclass(kind, BaseModel))
    if not known or (kind is list and "item" not in found):
        raise TypeError(
            f"{name}: an option is an int, float, str, bool, Literal of strings, tuple[…, ...] or a section, or one of "
            f"them and None; got {annotation}"
        )
    return Field(kind, nullable=nullable, **found, **more)


def _unwrapped(annotation: Any, metadata: Iterable) -> tuple[Any, list, bool]:
    """The type within `Annotated` and `… | None`, what they say of it, and whether it may be None."""
    told, nullable = list(metadata), False
    while (origin := get_origin(annotation)) in (Annotated, Union, types.UnionType):
        inner = get_args(annotation)
        if origin is Annotated:
            annotation, told = inner[0], [*told, *inner[1:]]
        else:
            kinds = [kind for kind in inner if kind is not types.NoneType]
            annotation, nullable = kinds[0] if len(kinds) == 1 else None, True
    for info in [info for info in told if isinstance(info, FieldInfo)]:
        told += info.metadata
    return annotation, told, nullable
