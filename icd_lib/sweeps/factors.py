"""The factors of a sweep: what its points differ in. A level is a name and the options that it sets."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from icd_lib.errors import ConfigError
from icd_lib.run.configuration import absolute_paths, parse_override

_NO_NAME = re.compile(r"[^A-Za-z0-9.]+")


@dataclass(frozen=True)
class Level:
    """One value of a factor. overrides: what it sets, `key.path=value`; source: the scenario, of a level of `base`."""

    name: str
    overrides: tuple[str, ...]
    source: str | None = None

    @property
    def keys(self) -> set[str]:
        return {override.partition("=")[0] for override in self.overrides}


@dataclass(frozen=True)
class Factor:
    """A name and its levels, in the order in which they are run."""

    name: str
    levels: tuple[Level, ...]


def read_factor(name: str, given, folder: Path) -> Factor:
    """A factor of a grid: an option with a list of its values, or a name of one's own with level → options.

    folder: where relative paths are counted from. `ConfigError` says what is wrong with which level.
    """
    where = f"grid.{name}"
    if isinstance(given, Mapping):
        levels = [Level(str(key), settings(value, f"{where}.{key}", folder)) for key, value in given.items()]
    elif isinstance(given, list):
        levels = [Level(level_name(value), settings({name: value}, where, folder)) for value in given]
    else:
        raise ConfigError(
            f"{where} takes a list of the option's values, or a mapping of level to options; got {given!r:.60}"
        )
    if not levels:
        raise ConfigError(f"{where} has no level; give one or more, or leave {name!r} out")
    twice = {level.name for level in levels if [one.name for one in levels].count(level.name) > 1}
    if twice:
        raise ConfigError(f"{where} has the level {min(twice)!r} twice; keep one")
    return Factor(name, tuple(levels))


def settings(given, where: str, folder: Path) -> tuple[str, ...]:
    """Options as overrides, each checked: `{"measure": {"repeats": 3}}` and `{"measure.repeats": 3}` are the same."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} takes options such as 'measure.repeats: 3', got {given!r:.60}")
    found = []
    for key, value in _flat(given).items():
        if key == "scenario":
            raise ConfigError(f"{where}: the name of a point is made of its levels; leave out 'scenario'")
        try:
            found.append(_checked(f"{key}={override_value(value)}", folder))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error.args[0]}") from error
    return tuple(found)


def override_value(value) -> str:
    """A value of YAML as it stands behind `=` in an override.

    >>> override_value(0.5), override_value(None), override_value([[8, 128]]), override_value("a #b")
    ('0.5', 'null', '[[8, 128]]', 'a #b')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def level_name(value) -> str:
    """What a value is called in tables and in the name of a folder.

    >>> level_name(0.3), level_name([[8, 128], [1, 32]]), level_name(None), level_name(True)
    ('0.3', '8-128-1-32', 'null', 'true')
    """
    return slug(override_value(value))


def slug(text: str) -> str:
    """Letters, digits and dots, and a dash for all else.

    >>> slug("/models/my model"), slug("")
    ('models-my-model', 'none')
    """
    return _NO_NAME.sub("-", text).strip("-.") or "none"


def _flat(given: Mapping, where: str = "") -> dict:
    found: dict = {}
    for key, value in given.items():
        path = f"{where}.{key}" if where else str(key)
        found |= _flat(value, path) if isinstance(value, Mapping) else {path: value}
    return found


def _checked(override: str, folder: Path) -> str:
    """The override if a scenario takes it, its path, if it sets one, counted from `folder`."""
    nested = parse_override(override)
    absolute = absolute_paths(nested, folder)
    if absolute == nested:
        return override
    leaf = absolute
    while isinstance(leaf, Mapping):
        leaf = next(iter(leaf.values()))
    return f"{override.partition('=')[0]}={leaf}"
