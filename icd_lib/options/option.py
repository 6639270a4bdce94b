"""How one option is declared: a typed line of a section, with its default, meaning, bounds and unit."""

import importlib
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, GetJsonSchemaHandler

Shape = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=2)]  # batch and length
OMITTED = object()  # default of an option that stays absent from a configuration when it is not given


def option(
    default,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    unit: str | None = None,
    least: int | None = None,
    is_path: bool = False,
    also: str | None = None,
    also_means: Mapping[bool, str] | None = None,
) -> Any:
    """One option of a section: its default (... where it must be given), its meaning in a line, bounds and unit.

    low, high: included; above: not included; they go with a number. least: how many elements a list has at least.
    is_path: a relative path, which is made absolute when a scenario is read. also: another name that it is given by;
    also_means: where that takes true or false, what each of them is here.
    """
    notes: dict[str, Any] = {"unit": unit, "is_path": is_path or None, "also": also, "also_means": also_means}
    notes["omitted"] = True if default is OMITTED else None
    bounds: dict[str, Any] = {"ge": low, "le": high, "gt": above, "min_length": least}
    return Field(
        default=None if default is OMITTED else default,
        description=doc,
        json_schema_extra={key: value for key, value in notes.items() if value is not None},
        **{key: value for key, value in bounds.items() if value is not None},
    )


@dataclass(frozen=True, eq=False)
class OneOf:
    """Names that a string takes: `Annotated[str, OneOf(NAMES)]`. They are read each time, so that a table may grow.

    names: an iterable, a function that gives one, or the place of either, "module:attribute", which is imported when it
    is needed. suggested: whoever uses the option checks it; the names are for editors only.
    """

    names: Iterable[str] | Callable[[], Iterable[str]] | str
    suggested: bool = False

    def __iter__(self) -> Iterator[str]:
        names = self.names
        if isinstance(names, str):
            module, _, attribute = names.partition(":")
            names = getattr(importlib.import_module(module), attribute)
        return iter(names() if callable(names) else names)

    def __get_pydantic_json_schema__(self, schema, handler: GetJsonSchemaHandler) -> dict:
        return handler(schema) | {"enum": list(self)}


def plain(value):
    """Values as a configuration has them: dicts, lists and Python's own numbers, for sections, tuples and numpy's."""
    if isinstance(value, BaseModel):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, numbers.Number) and hasattr(value, "item") else value
