"""icd.json of an export: what it is, what it was checked against, and the hash of every file beside it.

{"format": "icd/v1", "export": {"runtime", "precision", "hints", "label", "architecture", "inputs", "output", "pooling",
"normalize", "max_length", "widths": {axis: elements}, "emulated", "versions", "verified", "doubt", "sha256": {file:
hash}}}. An export of eager PyTorch is an optimised model as well and has that one's keys beside these.
"""

from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.models.checkpoint.optimized import FORMAT, RECORD
from icd_lib.paths import unsafe_name, user_path
from icd_lib.storage.atomic import atomic_write, sha256_file, to_json
from icd_lib.storage.json_text import read_text


def write_record(folder: Path, facts: dict) -> None:
    """Write the record of a folder whose other files are all there; what an optimised model's record says stays."""
    path = folder / RECORD
    own = read_text(path) if path.is_file() else {"format": FORMAT}
    hashes = {rel: sha256_file(folder / rel) for rel in files_of(folder)}
    atomic_write(path, to_json({**own, "export": {**facts, "sha256": hashes}}))


def files_of(folder: Path) -> list[str]:
    """Relative paths of all files but the record, sorted."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path != folder / RECORD
    )


def is_export(folder: Path) -> bool:
    """Whether an export lies there, sound or damaged."""
    try:
        return isinstance(read_text(folder / RECORD).get("export"), dict)
    except (OSError, ValueError, AttributeError):
        return False


def check_export(folder: Path | str) -> dict:
    """What the record of an export says, after every file was found to be the one that was written.

    Raises `ArtifactError` for a folder without such a record, and for a file that is missing, changed, or was added.
    """
    folder = user_path(folder)
    if not is_export(folder):
        raise ArtifactError(f"{folder} holds no export (no {RECORD} that names one); write it with icd.export")
    facts = read_text(folder / RECORD)["export"]
    hashes = facts.get("sha256")
    if not isinstance(hashes, dict) or not hashes:
        raise ArtifactError(f"{folder / RECORD} lists no files; export the model again")
    for rel, expected in hashes.items():
        if reason := unsafe_name(rel):
            raise ArtifactError(f"{folder / RECORD} lists {rel[:80]!r}, which {reason}; export the model again")
        found = sha256_file(folder / rel)
        if found != expected:
            raise ArtifactError(
                f"{folder / rel} has sha256 {found[:12]}..., {RECORD} says {str(expected)[:12]}...; the file was "
                "truncated or changed after it was written: copy the folder again, or export the model again"
            )
    added = sorted(set(files_of(folder)) - set(hashes))
    if added:
        raise ArtifactError(f"{folder / added[0]} was added after the export, {RECORD} does not list it; remove it")
    return facts
