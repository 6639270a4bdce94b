"""Scenarios: YAML plus overrides become one validated, hashed configuration.

Precedence, lowest first: defaults of the options, the YAML, its `quick` block (with `quick=True`), overrides, seed.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from icd_lib.errors import ConfigError
from icd_lib.paths import project_root, user_path
from icd_lib.run.configuration import (
    Scenario,
    absolute_override,
    absolute_paths,
    check_name,
    check_names,
    config_digest,
    merge,
    parse_override,
    read_yaml,
)
from icd_lib.run.lock import load_lock
from icd_lib.run.options import check_config
from icd_lib.storage.devices import check_device_of

_BASE = re.compile(r"^base *:", re.MULTILINE)


def parameters_dir() -> Path:
    """Folder of the scenario files."""
    return project_root() / "parameters"


def list_scenarios() -> dict[str, str]:
    """Name → first comment line of every scenario file."""
    return _described(sweeps=False)


def list_sweeps() -> dict[str, str]:
    """Name → first comment line of every sweep of the project's own: many runs of scenarios in one file."""
    return _described(sweeps=True)


def _described(sweeps: bool) -> dict[str, str]:
    found = {}
    for path in sorted(parameters_dir().glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if bool(_BASE.search(text)) == sweeps:
            first = text.partition("\n")[0]
            found[path.stem] = first.lstrip("# ").strip() if first.startswith("#") else ""
    return found


def is_sweep(name_or_path: str | Path) -> bool:
    """Whether a name or file is a sweep's: it has the key `base`, which no scenario has; False where there is none."""
    try:
        return _BASE.search(scenario_file(name_or_path).read_text(encoding="utf-8")) is not None
    except (ConfigError, OSError, UnicodeDecodeError):  # whoever loads it says what is wrong
        return False


def load_scenario(
    name_or_path: str | Path, overrides: Iterable[str] = (), *, quick: bool = False, seed: int | None = None
) -> Scenario:
    """Read, override, validate and hash a scenario; every mistake is a `ConfigError` that names the key and the cure.

    `name_or_path` is a name in `parameters/`, a YAML file, or a run's `config.lock.json`, which no option may change;
    `overrides` are strings `"a.b=value"` (see `parse_override`).
    """
    if str(name_or_path).endswith(".json"):
        return load_lock(name_or_path, _as_strings(overrides), quick=quick, seed=seed)
    path = scenario_file(name_or_path)
    given = read_mapping(path)
    if "base" in given:
        raise ConfigError(f"{path.name} is a sweep of many runs; run it with --sweep, or icd_lib.sweep in Python")
    overlay = given.pop("quick", None)
    # A file with a typo in its quick block is wrong also when the block is not used.
    overlay = check_config({} if overlay is None else overlay, "quick", partial=True, quick=True)
    given.setdefault("scenario", path.stem)
    given = check_config(given, partial=True)
    if quick:
        if not overlay:
            raise ConfigError(
                f"{path.name} has no quick block, so --quick would run all of it and call it quick; leave --quick out, "
                "or add a block that says what is fewer, as that of parameters/bert.yaml does"
            )
        given = merge(given, overlay)
    given = absolute_paths(given, path.parent)
    overrides = [absolute_override(override) for override in _as_strings(overrides)]
    check_names(overrides)
    for override in overrides:
        given = merge(given, parse_override(override))
    if seed is not None:
        given["seed"] = seed
    config = check_config(given)
    check_name(config["scenario"])
    check_domains(config["data"])
    check_device_of(config)
    config["quick"] = bool(quick)
    digest = config_digest(config)
    return Scenario(config["scenario"], config, digest, str(name_or_path), bool(quick), tuple(overrides), seed)


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


def _as_strings(overrides) -> list[str]:
    if isinstance(overrides, str):
        raise ConfigError(f"overrides take a list of strings 'key.path=value', got the string {overrides!r}")
    for override in (overrides := list(overrides or ())):
        if not isinstance(override, str):
            raise ConfigError(f"an override takes the form key.path=value, got {override!r}")
    return overrides


def scenario_file(name_or_path: str | Path) -> Path:
    """The file of a scenario or a sweep, given by its name in `parameters/` or its path; `ConfigError` if none is."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text or "\\" in text:
        path = user_path(text)
        if path.is_file():
            return path
        raise ConfigError(f"there is no scenario file {text!r}; give an existing .yaml file or a name: {_names()}")
    path = parameters_dir() / user_path(f"{text}.yaml")
    if path.is_file():
        return path
    near = difflib.get_close_matches(text, [*list_scenarios(), *list_sweeps()], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"unknown scenario {text!r}{hint} Known: {_names()}; or give the path of a .yaml file")


def _names() -> str:
    return ", ".join(list_scenarios()) or "none"


def read_mapping(path: Path) -> dict:
    """The keys of a YAML file; `ConfigError` names the file and the fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"cannot read the scenario file {path}: {error.strerror}") from error
    given = read_yaml(text, path.name)
    if not isinstance(given, dict):
        raise ConfigError(f"{path.name} takes a mapping of keys such as 'seed: 0', got {type(given).__name__}")
    return given
