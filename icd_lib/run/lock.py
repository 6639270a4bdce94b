"""A run's config.lock.json read back: exactly that configuration, or an error that says why not."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.options import Section
from icd_lib.options.field import fields
from icd_lib.paths import user_path
from icd_lib.run.configuration import Scenario, absolute_override, check_name, config_digest, merge, parse_override
from icd_lib.run.options import check_config, scenario_options, unknown_key
from icd_lib.scrub.text import PLACEHOLDER, restore_paths
from icd_lib.storage.json_text import parse_json
from icd_lib.version import VERSION

MAX_BYTES = 2**20
FIELDS = {"scenario": str, "sha256": str, "quick": bool, "overrides": list, "icd_version": str, "config": dict}


def check_lock(lock, name: str) -> dict:
    """`lock` if its fields are there, of their types, and agree with each other; else `ArtifactError`."""
    if not isinstance(lock, dict):
        raise ArtifactError(f"{name} is no lock: it takes a mapping with {', '.join(FIELDS)}")
    for key, kind in FIELDS.items():
        if type(lock.get(key)) is not kind:
            raise ArtifactError(
                f"{name} is no lock: {key!r} takes a {kind.__name__}, got {type(lock.get(key)).__name__}"
            )
    for key in ("scenario", "quick"):
        if lock["config"].get(key) != lock[key]:
            raise ArtifactError(
                f"{name} was changed: {key!r} is {lock[key]!r} and {lock['config'].get(key)!r} in config"
            )
    return lock


def load_lock(
    path: str | Path, overrides: Iterable[str] = (), *, quick: bool = False, seed: int | None = None
) -> Scenario:
    """The `Scenario` that a lock holds, with the same sha256.

    Options may be repeated but not change it (`ConfigError`). Also `ConfigError`: a key that this ICD does not know or
    one that the lock does not give. `ArtifactError`: unreadable, or its hash is not that of its configuration.
    """
    path = user_path(path)
    lock = check_lock(parse_json(_read(path), path.name), path.name)
    made_with = f"{path.name} was made with ICD {lock['icd_version']}, this is {VERSION}"
    config = {key: value for key, value in lock["config"].items() if key != "quick"}
    _check_known(config, made_with, scenario_options())
    config = restore_paths(config)
    full = config | {"quick": lock["quick"]}
    if config_digest(full) != lock["sha256"]:
        raise ArtifactError(_why_other(path.name, lock))
    checked = check_config(config)
    if config_digest(checked | {"quick": lock["quick"]}) != lock["sha256"]:
        raise ConfigError(f"{made_with}: it does not give every option; run its scenario instead")
    return _as_scenario(path, lock, full, overrides, quick, seed)


def _as_scenario(
    path: Path, lock: dict, config: dict, overrides: Iterable[str], quick: bool, seed: int | None
) -> Scenario:
    check_name(config["scenario"])
    locked = restore_paths(lock["overrides"])
    if not all(isinstance(override, str) for override in locked):
        raise ArtifactError(f"{path.name} is no lock: overrides takes a list of strings")
    overrides = list(overrides or ())
    if overrides != locked:
        _check_unchanged(config, overrides)
    if quick and not config["quick"]:
        raise ConfigError(f"--quick would change the configuration of {path.name}; leave it out")
    if seed is not None and seed != config["seed"]:
        raise ConfigError(f"--seed {seed} would change the configuration of {path.name} (seed {config['seed']})")
    return Scenario(config["scenario"], config, lock["sha256"], str(path.resolve()), config["quick"], tuple(locked))


def _check_unchanged(config: dict, overrides: list[str]) -> None:
    for override in overrides:
        if merge(config, parse_override(absolute_override(override))) != config:
            raise ConfigError(f"the override {override!r} would change the locked configuration; leave one of them out")


def _check_known(config: Mapping, made_with: str, section: type[Section], where: str = "") -> None:
    """Unknown keys first: they say that another ICD made the lock, whatever its hash."""
    options = fields(section)
    for key, value in config.items():
        path = f"{where}.{key}" if where else key
        if key not in options:
            raise ConfigError(f"{made_with}: {unknown_key(path, key, options)}")
        if isinstance(value, Mapping) and options[key].section is not None:
            _check_known(value, made_with, options[key].section, path)


def _why_other(name: str, lock: dict) -> str:
    text = f"{name} was changed: its configuration does not have the hash that it states ({lock['sha256'][:12]})"
    if PLACEHOLDER.search(json.dumps(lock["config"])):
        text += "; or it holds a path of another machine, which was scrubbed: run the scenario with that path instead"
    return text


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no lock {path}; a run keeps one in its folder as config.lock.json") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ArtifactError(f"{path} is larger than a lock can be ({MAX_BYTES} bytes)")
    return data
