"""What was measured of this machine and holds for later runs: kept in `ICD_CACHE_DIR`, by default ~/.cache/icd.

The plan of a run follows the measured width curves. Measuring them once per machine and model makes two runs with one
seed take the same decisions.
"""

import hashlib
import json
import os
from pathlib import Path

from icd_lib.artifacts import atomic_write, to_json
from icd_lib.errors import ArtifactError


def cache_folder() -> Path:
    """Folder of this machine's figures."""
    return Path(os.environ.get("ICD_CACHE_DIR") or Path.home() / ".cache" / "icd")


def tables_file(key: dict) -> Path:
    """Where the tables of `key` (model, shape, widths, threads, processor, versions) lie."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"tables-{digest[:24]}.json"


def read_tables(key: dict) -> dict | None:
    """The kept tables of exactly this key, or None; a damaged file counts as none and is measured anew."""
    try:
        entry = json.loads(tables_file(key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry["tables"] if isinstance(entry, dict) and entry.get("key") == key else None


def keep_tables(key: dict, tables: dict) -> bool:
    """Keep the tables for later runs; False where the cache cannot be written (a later run then measures again)."""
    try:
        atomic_write(tables_file(key), to_json({"key": key, "tables": tables}))
    except ArtifactError:
        return False
    return True
