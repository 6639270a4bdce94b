"""Copy a run, or a sweep, to where it is kept for others: scrubbed, without large files, its manifest true to it."""

import hashlib
import json
import shutil
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.paths import user_path
from icd_lib.run.artifacts import LOCK
from icd_lib.run.manifest import UNLISTED, as_text, list_files
from icd_lib.scrub.files import scrub_file
from icd_lib.storage.atomic import atomic_write, to_json, write_error
from icd_lib.sweeps.result import FILE as SWEEP

# Weights, access graphs, tokenizers, recorded text and a profiler's own files: large, not ours to pass on, or binary.
# They are made again from the same configuration, and the manifest's hashes say which they were.
_ASSETS = (".safetensors", ".onnx", ".bin", ".xml", ".npz", ".npy", ".pt", ".gguf", ".gz", ".ncu-rep", ".nsys-rep")
_ASSETS += ("/tokenizer.json", "/tokenizer.model", "/vocab.txt", "/vocab.json", "/merges.txt")


def is_asset(rel: str) -> bool:
    """Whether a file of a run is kept by its hash only.

    >>> is_asset("linear/model/model.safetensors"), is_asset("linear/metrics.json")
    (True, False)
    """
    return rel.endswith(_ASSETS)


def clean_run(folder: Path) -> dict[str, bytes]:
    """Relative path → scrubbed bytes of a run's files, assets left out, the manifest's hashes those of these bytes.

    Raises `ArtifactError` if there is no run, a file is a link, or a file cannot be cleaned.
    """
    if not (folder / LOCK).is_file():
        raise ArtifactError(f"{folder} holds no run (no {LOCK}); make one with run_all.py first")
    links = sorted(path for path in folder.rglob("*") if path.is_symlink())
    if links:
        raise ArtifactError(f"{links[0]} is a link; a copy of a run takes files only")
    names = [rel for rel in [*list_files(folder), *UNLISTED] if (folder / rel).is_file()]
    cleaned = {rel: scrub_file(rel, _read(folder / rel)) for rel in names if not is_asset(rel)}
    if "manifest.json" in cleaned:
        manifest = json.loads(cleaned["manifest.json"])
        listed = manifest.get("files") if isinstance(manifest, dict) else None
        if not isinstance(listed, dict):
            raise ArtifactError(f"{folder / 'manifest.json'} lists no files; make the run again with --force")
        changed = {rel: hashlib.sha256(data).hexdigest() for rel, data in cleaned.items() if rel in listed}
        if not changed.items() <= listed.items():
            manifest |= {"files": listed | changed}
            cleaned["manifest.json"] = to_json(manifest).encode()
            cleaned["manifest.txt"] = as_text(manifest).encode()
    return cleaned


def clean_sweep(folder: Path) -> dict[str, bytes]:
    """Relative path → scrubbed bytes of a sweep's own files, and of every run that it holds, as `clean_run` does."""
    runs = {path.parent.name: clean_run(path.parent) for path in sorted(folder.glob(f"*/{LOCK}"))}
    own = [rel for rel in list_files(folder) if rel.partition("/")[0] not in runs]
    cleaned = {rel: scrub_file(rel, _read(folder / rel)) for rel in own}
    return cleaned | {f"{name}/{rel}": data for name, files in runs.items() for rel, data in files.items()}


def save_reference(folder: Path | str, destination: Path | str) -> list[str]:
    """Replace `destination` by a scrubbed copy of the run or sweep in `folder`; returns the relative paths copied.

    Weights, graphs and tokenizers stay behind: the manifest's hashes say which they were. Raises `ArtifactError` if
    there is no run or a file cannot be cleaned; then an earlier copy stays as it is.
    """
    folder, destination = user_path(folder), user_path(destination)
    cleaned = clean_sweep(folder) if (folder / SWEEP).is_file() else clean_run(folder)
    if destination.exists() and not any((destination / name).is_file() for name in (LOCK, SWEEP)):
        raise ArtifactError(f"{destination} exists and is no run; remove it or choose another place")
    try:
        if destination.exists():
            shutil.rmtree(destination)
    except OSError as error:
        raise write_error(destination, error) from error
    for rel, data in cleaned.items():
        atomic_write(destination / rel, data)
    return list(cleaned)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error
