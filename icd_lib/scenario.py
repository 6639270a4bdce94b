"""Scenarios: YAML plus overrides become one validated, hashed configuration.

Precedence, lowest first: defaults of the schema, the YAML, its `quick` block (with `quick=True`), overrides, seed.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from icd_lib.errors import ConfigError
from icd_lib.schema import SCHEMA, check_config, unknown_key

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


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_without_duplicates)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def project_root() -> Path:
    """Folder that holds pyproject.toml above `icd_lib`, else the working directory."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def user_path(given: str | Path) -> Path:
    """A path that a person gave, with `~` spelled out; `ConfigError` unless a file can have this name."""
    try:
        path = Path(given).expanduser()
        parts = os.fsencode(path).split(b"/")
    except (RuntimeError, ValueError) as error:  # nobody's home, or characters that no file name has
        raise ConfigError(f"{str(given)[:80]!r} is no path: {error}") from error
    if any(b"\0" in part or len(part) > 255 for part in parts) or sum(map(len, parts)) > 4000:
        raise ConfigError(f"{str(given)[:80]!r} is no path: it is too long or holds a null character")
    return path


def parameters_dir() -> Path:
    """Folder of the scenario files."""
    return project_root() / "parameters"


def list_scenarios() -> dict[str, str]:
    """Name → first comment line of every scenario file."""
    found = {}
    for path in sorted(parameters_dir().glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return found


def load_scenario(
    name_or_path: str | Path, overrides: Iterable[str] = (), *, quick: bool = False, seed: int | None = None
) -> Scenario:
    """Read, override, validate and hash a scenario; every mistake is a `ConfigError` that names the key and the cure.

    `name_or_path` is a name in `parameters/`, a YAML file, or a run's `config.lock.json`, which no option may change;
    `overrides` are strings `"a.b=value"`, value in YAML.
    """
    if str(name_or_path).endswith(".json"):
        from icd_lib.lock import load_lock  # it builds on this module

        return load_lock(name_or_path, _as_strings(overrides), quick=quick, seed=seed)
    path = _find(name_or_path)
    given = _parse(path)
    overlay = given.pop("quick", None)
    # A file with a typo in its quick block is wrong also when the block is not used.
    overlay = check_config({} if overlay is None else overlay, _OVERLAY, "quick", partial=True)
    given.setdefault("scenario", path.stem)
    given = check_config(given, partial=True)
    if quick:
        given = merge(given, overlay)
    given = _absolute_paths(given, path.parent)
    overrides = [absolute_override(override) for override in _as_strings(overrides)]
    for override in overrides:
        given = merge(given, parse_override(override))
    if seed is not None:
        given["seed"] = seed
    config = check_config(given)
    check_name(config["scenario"])
    check_domains(config["data"])
    config["quick"] = bool(quick)
    digest = config_digest(config)
    return Scenario(config["scenario"], config, digest, str(name_or_path), bool(quick), tuple(overrides), seed)


def config_digest(config: Mapping) -> str:
    """sha256 of a configuration: `Scenario.sha256`, and what its lock states."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, allow_nan=False).encode()).hexdigest()


def check_name(name: str) -> None:
    """Raise `ConfigError` unless a scenario's name can be a folder's."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"scenario is also a folder name: it takes letters, digits, '_', '-' and '.'; got {name!r}")


def check_domains(data: Mapping) -> None:
    """Raise `ConfigError` unless data.seen, data.selection and data.unseen name domains that there are, each once."""
    from icd_lib.data.domains import DOMAINS, GROUPS, check_groups  # they build on this module

    for group in GROUPS:
        for name in data[group]:
            if name not in DOMAINS:
                near = difflib.get_close_matches(name, DOMAINS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"data.{group}: there is no domain {name!r}{hint} Known: {', '.join(DOMAINS)}")
    check_groups(*(data[group] for group in GROUPS))


# A quick run keeps the name, and so the folder, of its scenario.
_OVERLAY = {key: entry for key, entry in SCHEMA.items() if key != "scenario"}


def parse_override(override: str) -> dict:
    """`"a.b=c"` as a checked nested dict; the value is a YAML scalar or list.

    >>> parse_override("codesign.quality_budget_pp=0.2")
    {'codesign': {'quality_budget_pp': 0.2}}
    """
    path, equals, value = override.partition("=")
    path = path.strip()
    if not equals or not path:
        raise ConfigError(f"an override takes the form key.path=value, got {override!r}; write e.g. seed=1")
    shown = repr(override if len(override) <= 200 else f"{override[:200]}…")
    nested = _yaml(value, f"override {shown}")
    entry = SCHEMA
    for i, key in enumerate(keys := path.split(".")):
        if not isinstance(entry, Mapping):
            raise ConfigError(f"override {shown}: {'.'.join(keys[:i])!r} is a value and has no keys of its own")
        if key not in entry:
            raise ConfigError(unknown_key(path, key, entry))
        entry = entry[key]
    if isinstance(entry, Mapping):
        raise ConfigError(f"override {shown}: {path!r} is a group; set one of its keys: {', '.join(entry)}")
    for key in reversed(keys):
        nested = {key: nested}
    return check_config(nested, partial=True)


def _absolute_paths(given: Mapping, folder: Path, schema: Mapping = SCHEMA) -> dict:
    """`given` with relative paths counted from `folder`: notebooks read the same scenario from another folder."""
    found = dict(given)
    for key, value in given.items():
        if isinstance(value, Mapping):
            found[key] = _absolute_paths(value, folder, schema[key])
        elif schema[key].is_path and value is not None:
            found[key] = str((folder / user_path(value)).resolve())
    return found


def absolute_override(override: str) -> str:
    """The override with its path, if it sets one, counted from the working directory."""
    nested = parse_override(override)
    if (absolute := _absolute_paths(nested, Path.cwd())) == nested:
        return override
    while isinstance(absolute, Mapping):
        absolute = next(iter(absolute.values()))
    return f"{override.partition('=')[0]}={json.dumps(absolute, ensure_ascii=False)}"


def _as_strings(overrides) -> list[str]:
    if isinstance(overrides, str):
        raise ConfigError(f"overrides take a list of strings 'key.path=value', got the string {overrides!r}")
    for override in (overrides := list(overrides or ())):
        if not isinstance(override, str):
            raise ConfigError(f"an override takes the form key.path=value, got {override!r}")
    return overrides


def _find(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text or "\\" in text:
        path = user_path(text)
        if path.is_file():
            return path
        raise ConfigError(f"there is no scenario file {text!r}; give an existing .yaml file or a name: {_names()}")
    path = parameters_dir() / user_path(f"{text}.yaml")
    if path.is_file():
        return path
    near = difflib.get_close_matches(text, list_scenarios(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"unknown scenario {text!r}{hint} Known: {_names()}; or give the path of a .yaml file")


def _names() -> str:
    return ", ".join(list_scenarios()) or "none"


def _parse(path: Path) -> dict:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"cannot read the scenario file {path}: {error.strerror}") from error
    given = _yaml(text, path.name)
    if not isinstance(given, dict):
        raise ConfigError(f"{path.name} takes a mapping of keys such as 'seed: 0', got {type(given).__name__}")
    return given


# ValueError: an impossible date such as 2024-13-01. The others: a tag such as !!bool on a text that is none.
_NO_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, OverflowError)


def _yaml(text: str, what: str):
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader: it constructs plain values only
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
