"""Copy a run to where it is kept for others: scrubbed, without its large files, its manifest true to the copy."""

import json
import shutil
from pathlib import Path

from icd_lib.artifacts import LOCK, atomic_write, sha256_file, to_json, write_error
from icd_lib.errors import ArtifactError
from icd_lib.manifest import list_files
from icd_lib.scrub import scrub_strings, scrub_text

_JSON = (".json", ".ipynb")
_TEXT = (".html", ".csv", ".txt", ".md", ".log", ".svg")
# Made again from the same configuration, and hashed in the manifest: weights, access graphs, tokenizers.
_LEFT_OUT = (".safetensors", ".onnx", ".bin", ".xml", ".npz", "/tokenizer.json", "/vocab.txt")


def save_reference(folder: Path | str, destination: Path | str) -> list[str]:
    """Replace `destination` by a scrubbed copy of the run in `folder`; returns the relative paths copied.

    Weights, graphs and tokenizers stay behind: the manifest's hashes say which they were. Raises
    `ArtifactError` if there is no run.
    """
    folder, destination = Path(folder), Path(destination)
    if not (folder / LOCK).is_file():
        raise ArtifactError(f"{folder} holds no run (no {LOCK}); make one with run_all.py first")
    if destination.exists() and not (destination / LOCK).is_file():
        raise ArtifactError(f"{destination} exists and is no run; remove it or choose another place")
    shutil.rmtree(destination, ignore_errors=True)
    names = [rel for rel in [*list_files(folder), "manifest.json", "run.log"] if (folder / rel).is_file()]
    copied = [rel for rel in names if not rel.endswith(_LEFT_OUT)]
    for rel in copied:
        _copy(folder / rel, destination / rel)
    if "manifest.json" in copied:
        manifest = json.loads((destination / "manifest.json").read_text(encoding="utf-8"))
        manifest["files"] |= {rel: sha256_file(destination / rel) for rel in copied if rel in manifest["files"]}
        atomic_write(destination / "manifest.json", to_json(manifest))
    return copied


def _copy(source: Path, target: Path) -> None:
    if source.suffix in _JSON:
        value = json.loads(source.read_text(encoding="utf-8"))
        atomic_write(target, json.dumps(scrub_strings(value), indent=1, ensure_ascii=False) + "\n")
    elif source.suffix in _TEXT:
        atomic_write(target, scrub_text(source.read_text(encoding="utf-8")))
    else:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError as error:
            raise write_error(target, error) from error
