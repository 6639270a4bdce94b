"""A configuration: one validated, hashed nested table, and what may be laid over it."""

import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import BaseModel

from icd_lib.errors import ConfigError
from icd_lib.options import Section
from icd_lib.options.field import Field, aliases, fields
from icd_lib.options.option import OMITTED
from icd_lib.paths import user_path
from icd_lib.run.options import check_config, scenario_options, unknown_key

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Scenario:
    """A validated scenario: `config` is a nested dict of plain Python values, `sha256` its hash."""

    name: str
    config: dict
    sha256: str
    source: str
    quick: bool = False
    overrides: tuple[str, ...] = ()
    seed: int | None = None  # as given beside the file; None leaves it to the configuration

    def get(self, path: str):
        """Value at a dotted path such as `"codesign.quality_budget_pp"`; `ConfigError` if there is none."""
        node = self.config
        for key in path.split("."):
            if not isinstance(node, Mapping) or key not in node:
                raise ConfigError(unknown_key(path, key, node if isinstance(node, Mapping) else {}))
            node = node[key]
        return node


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads `2e-4` as a number (YAML 1.1 calls it a string)."""


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict:
    loader.flatten_mapping(node)
    result = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConfigError(f"line {key_node.start_mark.line + 1}: a key must be a string, got {key!r}")
        if key in result:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: key {key!r} is given twice; keep one")
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def config_digest(config: Mapping) -> str:
    """sha256 of a configuration: `Scenario.sha256`, and what its lock states."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check_name(name: str) -> None:
    """Raise `ConfigError` unless a scenario's name can be a folder's."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"scenario is also a folder name: it takes letters, digits, '_', '-' and '.'; got {name!r}")


def parse_override(override: str) -> dict:
    """`"a.b=c"` as a checked nested dict: where the key takes a text, c itself; elsewhere c is a YAML scalar or list.

    `null` is None where the key takes that too. Nothing after `=` is refused for a text: more likely than an empty
    text is a shell's variable that is not set.

    >>> parse_override("codesign.quality_budget_pp=0.2")
    {'codesign': {'quality_budget_pp': 0.2}}
    >>> parse_override("model.checkpoint=/models/my #1: model")
    {'model': {'checkpoint': '/models/my #1: model'}}
    >>> parse_override("decode=null")  # a section that a scenario need not have
    {'decode': None}
    """
    path, equals, value = override.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"an override takes the form key.path=value, got {override!r}; write e.g. seed=1")
    shown = repr(override if len(override) <= 200 else f"{override[:200]}…")
    section: type[BaseModel] | None = scenario_options()
    for i, key in enumerate(keys := path.split(".")):
        key = key if section is None else aliases(section).get(key, key)
        if section is None:
            raise ConfigError(f"override {shown}: {'.'.join(keys[:i])!r} is a value and has no keys of its own")
        if key not in fields(section):
            raise ConfigError(unknown_key(path, key, fields(section)))
        field = fields(section)[key]
        section = field.section
    if section is not None:
        if value.strip() != "null" or field.default is not OMITTED:
            cure = " (or null, for none of it)" if field.default is OMITTED else ""
            listed = ", ".join(fields(section))
            raise ConfigError(f"override {shown}: {path!r} is a group; set one of its keys{cure}: {listed}")
        nested = None
    else:
        is_switch = field.also_means is not None and keys[-1] == field.also
        is_text = field.kind is str and not is_switch
        nested = _text(value, field, shown) if is_text else read_yaml(value, f"override {shown}")
    for key in reversed(keys):
        nested = {key: nested}
    return check_config(nested, partial=True)


def check_names(overrides: Iterable[str]) -> None:
    """Raise `ConfigError` where two of the overrides give one option different values by two names of it."""
    seen: dict[str, tuple[str, dict]] = {}
    for override in overrides:
        nested, path = parse_override(override), override.partition("=")[0].strip()
        own = _path_of(nested)
        before, value = seen.setdefault(own, (path, nested))
        if before != path and value != nested:
            raise ConfigError(f"{before} and {path} are two names of one option and contradict each other; keep one")
        seen[own] = (path, nested)


def _path_of(nested: Mapping) -> str:
    """The dotted path of the one value in a nested mapping."""
    keys = []
    node = nested
    while isinstance(node, Mapping) and len(node) == 1:
        key, node = next(iter(node.items()))
        keys.append(key)
    return ".".join(keys)


def _text(value: str, field: Field, shown: str) -> str | None:
    """The text of an override, character by character: a path may hold what YAML reads as a comment or a mapping."""
    if not value:
        cure = "a text, or null for none" if field.nullable else field.takes()
        raise ConfigError(f"override {shown}: nothing stands after '='; give {cure}")
    return None if field.nullable and value == "null" else value


def absolute_paths(given: Mapping, folder: Path, section: type[Section] | None = None) -> dict:
    """`given` with relative paths counted from `folder`: notebooks read the same scenario from another folder."""
    found, options = dict(given), fields(section or scenario_options())
    for key, value in given.items():
        if isinstance(value, Mapping):
            found[key] = absolute_paths(value, folder, options[key].section)
        elif options[key].is_path and value is not None:
            found[key] = str((folder / user_path(value)).resolve())
    return found


def absolute_override(override: str) -> str:
    """The override with its path, if it sets one, counted from the working directory."""
    nested = parse_override(override)
    if (absolute := absolute_paths(nested, Path.cwd())) == nested:
        return override
    while isinstance(absolute, Mapping):
        absolute = next(iter(absolute.values()))
    return f"{override.partition('=')[0]}={absolute}"


# ValueError: an impossible date such as 2024-13-01. The others: a tag such as !!bool on a text that is none.
_NO_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, OverflowError)


@functools.lru_cache(maxsize=256)
def _parsed(text: str):
    """Not to be changed: the points of a sweep read one file and the same values thousands of times."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader: it constructs plain values only


def read_yaml(text: str, what: str):
    try:
        return copy.deepcopy(_parsed(text))
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{what}, line {line}: only plain values are allowed; {error.problem or 'unsupported tag'}"
        ) from error
    except _NO_YAML as error:
        raise ConfigError(f"{what} is not valid YAML: {' '.join(str(error).split())[:500]}") from error
    except ConfigError as error:
        raise ConfigError(f"{what}: {error.args[0]}") from error


def merge(base: Mapping, top: Mapping) -> dict:
    """`base` with `top` laid over it; neither is changed."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
