"""The one place that says which version of ICD this is (pyproject.toml reads it from here)."""

import functools
import hashlib
from pathlib import Path

VERSION = "0.1.0"


@functools.cache
def sources_sha256(*folders: str) -> str:
    """sha256 over the Python files of icd_lib, or of folders in it: two checkouts of one version are told apart."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parent
    for path in sorted(path for folder in folders or (".",) for path in (root / folder).rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
