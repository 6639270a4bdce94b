"""Values checked against the sections: plain Python with the defaults filled in, or an error that says the cure."""

import copy
import difflib
import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from icd_lib.errors import ConfigError
from icd_lib.options.field import REQUIRED, Field, aliases, fields
from icd_lib.options.option import OMITTED


def check_values(
    given: Mapping,
    section: type[BaseModel],
    where: str = "",
    *,
    partial: bool = False,
    whole: type[BaseModel] | None = None,
) -> dict:
    """Return `given` as plain Python with defaults filled in (`partial` fills none), or raise `ConfigError`.

    where: the dotted path of the section; whole: where a key that is unknown here may have its place. A section that is
    left out by default is left out too where it is null, so that what is laid over a configuration can take it away.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where or 'the scenario'} takes a mapping of keys, got {_show(given)}")
    whole, options = whole or section, fields(section)
    given = _by_name(given, section, where)
    for key in given:
        if key not in options:
            raise ConfigError(unknown_key(_joined(where, str(key)), str(key), options, key_paths(whole)))
    checked: dict[str, Any] = {}
    for key, field in options.items():
        path = _joined(where, key)
        if field.section is not None:
            if key in given and given[key] is None and field.default is OMITTED:
                if partial:
                    checked[key] = None
            elif key in given or not (partial or field.default is OMITTED):
                inner = given.get(key, {})
                checked[key] = check_values(inner, field.section, path, partial=partial, whole=whole)
        elif key in given:
            checked[key] = check_value(given[key], field, path)
        elif field.default is REQUIRED and not partial:
            raise ConfigError(f"{path} is missing; it takes {field.takes()}: {field.doc}")
        elif field.default is not OMITTED and not partial:
            checked[key] = copy.deepcopy(field.default)
    return checked


def _by_name(given: Mapping, section: type[BaseModel], where: str) -> Mapping:
    """`given` with every option under its own name; `ConfigError` where one is given two values by two names."""
    names = aliases(section)
    found = {key: value for key, value in given.items() if key not in names}
    for alias, value in given.items():
        if (key := names.get(alias)) is None:
            continue
        meant = _meant(value, fields(section)[key], _joined(where, alias))
        if key in found and found[key] != meant:
            one, other = f"{_joined(where, key)}={found[key]}", f"{_joined(where, alias)}={value}"
            raise ConfigError(f"{one} and {other} are two names of one option and contradict each other; keep one")
        found[key] = meant
    return found


def _meant(value: Any, field: Field, path: str) -> Any:
    """What a value that was given by an option's other name is by its own."""
    return value if field.also_means is None else field.also_means[check_value(value, Field(bool), path)]


def check_value(value: Any, field: Field, path: str) -> Any:
    """Return `value` if `field` accepts it (an integer where a number is wanted becomes a float)."""
    if value is None and field.nullable:
        return None
    value = _converted(value, field.kind)
    if not _is_of(field.kind, value):
        raise ConfigError(f"{path} takes {field.takes()}; got {_show(value)}")
    if field.kind is str and any("\ud800" <= char <= "\udfff" for char in value):
        raise ConfigError(f"{path} takes {field.takes()}; {_show(value)} has characters that are no text")
    if field.kind is float and not math.isfinite(value):
        raise ConfigError(f"{path} takes a finite number; got {value}")
    if field.choices is not None and value not in (choices := tuple(field.choices)):
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{path} takes {field.takes()}; got {_show(value)}{hint}")
    too_low = (field.low is not None and value < field.low) or (field.above is not None and value <= field.above)
    if too_low or (field.high is not None and value > field.high):
        raise ConfigError(f"{path} is out of range: it takes {field.takes()}; got {_digits(value)}")
    if field.item is not None:
        if len(value) < field.least or (field.most is not None and len(value) > field.most):
            raise ConfigError(f"{path} takes {field.takes()}; got {_show(value)}")
        return [check_value(item, field.item, f"{path}[{i}]") for i, item in enumerate(value)]
    return value


def _converted(value: Any, kind: type) -> Any:
    """An integer where a number is wanted as that number; too large a one as infinity."""
    if kind is not float or type(value) is not int:
        return value
    return float(value) if abs(value) < 2**1023 else math.inf


def _is_of(kind: type, value: Any) -> bool:
    return type(value) is kind  # True is no integer


def unknown_key(path: str, key: str, valid: Iterable[str], paths: list[str]) -> str:
    """The message for a key that is none of `valid`, with the nearest valid name, of `paths` where none is near."""
    near = difflib.get_close_matches(key, valid := list(valid), n=1)
    if near:
        return f"unknown key {path!r}; did you mean {_joined(path.rpartition('.')[0], near[0])!r}?"
    leaves = {p.rpartition(".")[2]: p for p in paths}
    near = [key] if key in leaves else difflib.get_close_matches(path, paths, n=1)
    near = near or difflib.get_close_matches(key, leaves, n=1)
    hint = f"did you mean {leaves.get(near[0], near[0])!r}? " if near else ""
    return f"unknown key {path!r}; {hint}valid keys here: {', '.join(valid)}"


def key_paths(section: type[BaseModel], where: str = "") -> list[str]:
    """Every option as a dotted path, in order."""
    paths = []
    for key, field in fields(section).items():
        path = _joined(where, key)
        paths += [path] if field.section is None else key_paths(field.section, path)
    return paths


def _joined(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


class _Brief(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return _digits(x)


def _show(value) -> str:
    brief = _Brief()
    brief.maxlevel = 2  # a few lines of YAML aliases can stand for billions of items
    return f"{brief.repr(value)} ({type(value).__name__})"


def _digits(value) -> str:
    """A number in digits, unless it has more than Python would write (YAML's octal numbers have no limit)."""
    return f"{value}" if type(value) is not int or value.bit_length() < 1000 else f"{value.bit_length()} bits"
