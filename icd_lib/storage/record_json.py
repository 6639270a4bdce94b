"""Records as JSON: a dataclass says once what an object in a file holds; it is written and read back by that.

A field without a default is always written. One whose default is None is left out where it is None; one with another
default is written, and may be absent or null when read. What a record does not name is free: it is not read.
A class with a form of its own in the file has `to_json(self) -> dict`, and `arranged(cls, object) -> dict`, which gives
the fields back. `SPREAD` names a field whose items stand in the file as keys of the object itself.
"""

import dataclasses
import functools
import math
import types
import typing

from icd_lib.errors import ArtifactError

T = typing.TypeVar("T")

_WORDS = {dict: "an object", list: "a list", tuple: "a list", str: "a text", int: "an integer", bool: "true or false"}
_WORDS |= {float: "a number", types.NoneType: "null"}


def as_json(value):
    """`value` with every record in it, however deep, as a dict."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if dataclasses.is_dataclass(value):
        return as_json(value.to_json() if hasattr(value, "to_json") else fields_of(value))
    return value


def fields_of(record) -> dict:
    """The fields that are written, by name."""
    named = {field.name: (getattr(record, field.name), field.default) for field in dataclasses.fields(record)}
    return {name: value for name, (value, default) in named.items() if value is not None or default is not None}


def from_json(kind: type[T], value, where: str) -> T:
    """A JSON value as a record, or another type that is made of records, dicts, lists, unions and plain values.

    Raises `ArtifactError` that names `where` (the file), the place in it and the cure. True and false are no numbers;
    a number is finite and fits 64 bits.
    """
    return _read(kind, value, "", where)


def _read(kind, value, at: str, where: str):
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (typing.Any, object):
        return value
    if origin in (typing.Union, types.UnionType):
        return _read(next((one for one in inner if _fits(one, value)), inner[0]), value, at, where)
    if origin is typing.Literal:
        if _typed(str, value, at, where) not in inner:
            raise _wrong(where, at, f"takes one of {', '.join(inner)}; it holds {value[:40]!r}")
        return value
    if origin is dict:
        return {
            key: _read(inner[1], item, f"{at}.{key}", where) for key, item in _typed(dict, value, at, where).items()
        }
    if origin in (list, tuple):
        _typed(list, value, at, where)
        if origin is tuple and inner[-1] is not ... and len(value) != len(inner):
            raise _wrong(where, at, f"takes {len(inner)} items, it holds {len(value)}")
        return origin(_read(inner[0], item, f"{at}[{i}]", where) for i, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _record(kind, _typed(dict, value, at, where), at, where)
    return _typed(kind, value, at, where)


def _record(kind, value: dict, at: str, where: str):
    try:
        arranged = kind.arranged(value) if hasattr(kind, "arranged") else value
        return kind(**_given(kind, arranged, at, where))
    except ValueError as error:
        raise _wrong(where, at, f"contradicts itself ({error})") from error


def _given(kind, value: dict, at: str, where: str) -> dict:
    given, spread = {}, getattr(kind, "SPREAD", None)
    for name, (inner, needed) in _fields(kind).items():
        if name not in value and needed:
            raise _wrong(where, at, f"has no {name!r}")
        if needed or value.get(name) is not None:
            given[name] = _read(inner, value[name], at if name == spread else f"{at}.{name}", where)
    return given


@functools.cache
def _fields(kind) -> dict[str, tuple]:
    """Field → its type, and whether it has to be there."""
    hints, no = typing.get_type_hints(kind), dataclasses.MISSING
    return {
        field.name: (hints[field.name], field.default is no and field.default_factory is no)
        for field in dataclasses.fields(kind)
    }


def _fits(kind, value) -> bool:
    """Whether a value can be meant as a type, by what is seen from outside."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return isinstance(value, dict) and all(name in value for name, (_, needed) in _fields(kind).items() if needed)
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    return _is(value, {tuple: list}.get(typing.get_origin(kind), typing.get_origin(kind)) or kind)


def _typed(kind, value, at: str, where: str):
    if not _is(value, kind):
        raise _wrong(where, at, f"takes {_WORDS[kind]}, it holds {_WORDS.get(type(value), type(value).__name__)}")
    return value


def _is(value, kind) -> bool:
    """Whether a JSON value is of a type; true and false are no numbers, and a number is finite and fits 64 bits."""
    if kind not in (int, float):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, int | kind):
        return False
    return -(2**63) <= value < 2**63 if type(value) is int else math.isfinite(value)


def _wrong(where: str, at: str, what: str) -> ArtifactError:
    place = at.lstrip(".")
    place = f"{place[:80]!r} " if place else "it "
    return ArtifactError(f"{where} is damaged or of another version: {place}{what}; make it again with --force")
