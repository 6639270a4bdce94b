"""What was measured of this machine and holds for later runs: kept in `ICD_CACHE_DIR`, by default ~/.cache/icd.

The plan of a run follows the measured width curves. Measuring them once per machine and model makes two runs with one
seed take the same decisions.
"""

import hashlib
import json
import os
import platform
import socket
import tempfile
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.paths import home_folder, user_path
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text


def cache_folder() -> Path:
    """Folder of this machine's figures; of a user without a home a temporary one."""
    if given := os.environ.get("ICD_CACHE_DIR"):
        return user_path(given)
    home = home_folder()
    return home / ".cache" / "icd" if home else Path(tempfile.gettempdir()) / f"icd-{os.getuid()}"


def kept_file(kind: str, key: dict, folder: Path | None = None) -> Path:
    """Where what was measured of `kind` under `key` lies; folder: instead of this machine's."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return (folder or cache_folder()) / f"{kind}-{digest[:24]}.json"


def read_kept(kind: str, key: dict, folder: Path | None = None) -> dict | None:
    """What was kept of `kind` under exactly this key, or None; a damaged file counts as none: measure anew."""
    try:
        entry = read_text(kept_file(kind, key, folder))
    except (OSError, ValueError):
        return None
    return entry.get(kind) if isinstance(entry, dict) and entry.get("key") == key else None


def keep(kind: str, key: dict, value: dict, folder: Path | None = None) -> bool:
    """Keep `value` for later runs; False where the cache cannot be written (a later run then measures again)."""
    try:
        atomic_write(kept_file(kind, key, folder), to_json({"key": key, kind: value}))
    except ArtifactError:
        return False
    return True


def read_tables(key: dict) -> dict | None:
    """The kept tables of exactly this key, or None."""
    return read_kept("tables", key)


def keep_tables(key: dict, tables: dict) -> bool:
    """Keep the tables for later runs; False where the cache cannot be written."""
    return keep("tables", key, tables)


def this_machine() -> str:
    """A short name of this machine that tells nobody whose it is: the same in every process, another elsewhere."""
    try:
        number = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        number = ""
    return hashlib.sha256(f"{socket.gethostname()} {number}".encode()).hexdigest()[:6]


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """What the processor's instruction set has, as the system names it; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    named = (line.partition(":") for line in lines)
    return next((set(flags.split()) for key, _, flags in named if key.strip() in ("flags", "Features")), set())
