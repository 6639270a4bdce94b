"""Pack runs for others: `python -m icd_lib.packaging [RUN ...]` writes artifacts/icd_artifacts.zip (`make pack`).

Scrubbed, and the same bytes from the same inputs: sorted names, fixed times and permissions, nothing compressed
(compressed bytes would depend on the zlib at hand). What may not be passed on or is too large is named by its hash.
"""

import argparse
import contextlib
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from icd_lib.errors import EXIT_OK, ArtifactError, IcdError, ResourceError
from icd_lib.execute.output import steady_output
from icd_lib.paths import project_root, unsafe_name, user_path
from icd_lib.release.package_file import ASSETS, CONTENTS, FORMAT
from icd_lib.release.reference import clean_run, is_asset
from icd_lib.run.artifacts import LOCK
from icd_lib.run.manifest import list_files
from icd_lib.scrub.files import scrub_file
from icd_lib.storage.atomic import atomic_write, sha256_file, to_json
from icd_lib.storage.json_text import read_text
from icd_lib.version import VERSION

PACKAGE = Path("artifacts") / "icd_artifacts.zip"
FINISHED = ("manifest.json", "verdict.json", "measure/samples.json", "measure/measure.json")
PROJECT_FILES = ("LICENSE", "CITATION.cff")
WHY_BY_HASH = "weights, tokenizers, texts and access graphs: not ours to pass on, or made again from the lock"


def find_runs(root: Path | None = None) -> dict[str, Path]:
    """Path in the package → folder, of the runs in outputs/ ("runs/…") and outputs/reference/ ("reference/…")."""
    outputs = (root or project_root()) / "outputs"
    folders = {f"runs/{lock.parent.name}": lock.parent for lock in outputs.glob(f"*/{LOCK}")}
    return folders | {f"reference/{lock.parent.name}": lock.parent for lock in outputs.glob(f"reference/*/{LOCK}")}


def pack(
    folders: Sequence[Path | str] = (), target: Path | str | None = None, *, root: Path | None = None
) -> tuple[Path, dict]:
    """Write a package of the given run folders, or of all runs there are; returns its path and contents.json.

    A given run that is not finished, was changed afterwards or cannot be cleaned is an `ArtifactError` and nothing is
    written; of all runs there are, those not finished or changed afterwards are left out, and contents.json says why.
    """
    root = root or project_root()
    chosen = {f"runs/{folder.resolve().name}": folder for folder in map(user_path, folders)} or find_runs(root)
    if len(chosen) < len(folders):
        raise ArtifactError("two of the runs have the same name; pack them one by one")
    if not chosen:
        raise ArtifactError(f"there is no run in {root / 'outputs'}; make one with run_all.py first")
    left_out = {} if folders else {name: why for name, folder in chosen.items() if (why := why_unfit(folder))}
    files, assets, runs, provenance = {}, [], {}, {}
    for prefix, folder in sorted(chosen.items()):
        if prefix in left_out:
            continue
        if why := why_unfit(folder):
            raise ArtifactError(f"{folder} is not packed: {why}")
        with _nobody_writes(folder):
            cleaned = clean_run(folder)
            assets += find_assets(folder, prefix, cleaned)
        files |= {f"{prefix}/{rel}": (data, _hash_before(folder / rel, data)) for rel, data in cleaned.items()}
        manifest = json.loads(cleaned["manifest.json"])
        runs[prefix] = {key: manifest.get(key) for key in ("scenario", "config_sha256", "quick", "command")}
        provenance[prefix] = manifest.get("provenance", {})
    if not runs:
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(left_out.items()))
        raise ArtifactError(f"no run can be packed ({reasons})")
    files |= {
        name: (scrub_file(name, (root / name).read_bytes()), None) for name in PROJECT_FILES if (root / name).is_file()
    }
    listed = {"why": WHY_BY_HASH, "assets": sorted(assets, key=lambda asset: asset["path"]), "provenance": provenance}
    files[ASSETS] = (to_json(listed).encode(), None)
    contents = {"format": FORMAT, "icd_version": VERSION, "runs": runs, "left_out": dict(sorted(left_out.items()))}
    contents["files"] = {name: _describe(*files[name]) for name in sorted(files)}
    data = zip_bytes({name: data for name, (data, _) in files.items()} | {CONTENTS: to_json(contents).encode()})
    return atomic_write(user_path(target) if target else root / PACKAGE, data), contents


def why_unfit(folder: Path) -> str | None:
    """Why a run cannot be packed: not finished, or a file is not the one its manifest names; None if it can."""
    missing = [rel for rel in FINISHED if not (folder / rel).is_file()]
    if not (folder / LOCK).is_file() or missing:
        return f"it is not finished (no {missing[0] if missing else LOCK}); finish it with run_all.py --resume"
    try:
        listed = read_text(folder / "manifest.json")["files"]
        pairs = list(listed.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return f"manifest.json is damaged ({type(error).__name__}); make the run again with --force"
    present = set(list_files(folder))
    gone = [rel for rel, _ in pairs if rel not in present and not is_asset(rel)]
    if gone:
        return f"{gone[0]} is gone since the run ended"
    changed = [rel for rel, sha in pairs if rel in present and sha256_file(folder / rel) != sha]
    changed += sorted(present - listed.keys())
    return f"{changed[0]} was changed after the run ended; run it again with --resume" if changed else None


def find_assets(folder: Path, prefix: str, packed: dict[str, bytes]) -> list[dict]:
    """What the manifest lists and is not packed: {"path", "sha256", "bytes"}, bytes null where it is not kept here."""
    listed = json.loads(packed["manifest.json"])["files"]
    return [
        {
            "path": f"{prefix}/{rel}",
            "sha256": sha,
            "bytes": (folder / rel).stat().st_size if (folder / rel).is_file() else None,
        }
        for rel, sha in listed.items()
        if rel not in packed
    ]


def zip_bytes(files: dict[str, bytes]) -> bytes:
    """A zip file of these files; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            if why := unsafe_name(name):
                raise ArtifactError(f"{name!r} cannot be packed: the name {why}; rename it")
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16  # as on Unix: a file, rw-r--r--
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _hash_before(path: Path, data: bytes) -> str | None:
    """The hash of the file as it was, None where cleaning did not change it."""
    before = sha256_file(path)
    return before if before != hashlib.sha256(data).hexdigest() else None


def _describe(data: bytes, before: str | None) -> dict:
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return entry | ({"sha256_before_scrubbing": before} if before else {})


@contextlib.contextmanager
def _nobody_writes(folder: Path) -> Iterator[None]:
    """Hold the run's lock, where there is one: a run that goes on must not be packed half."""
    import fcntl

    try:
        file = open(folder / ".lock")
    except OSError:  # a copy of a run has no lock, and nobody writes to it
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(f"a run is writing to {folder}; pack when it is done") from error
        yield


@steady_output()
def main(argv: list[str] | None = None) -> int:
    """Pack and say what is in it."""
    parser = argparse.ArgumentParser(prog="python -m icd_lib.packaging", description="Pack runs for others, scrubbed.")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders (default: all in outputs/)")
    parser.add_argument("--to", metavar="FILE.zip", help=f"where to write it (default: {PACKAGE})")
    args = parser.parse_args(argv)
    try:
        path, contents = pack(args.runs, args.to)
    except IcdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for name, run in contents["runs"].items():
        print(f"packed    {name}{' (quick)' if run['quick'] else ''}")
    for name, why in contents["left_out"].items():
        print(f"left out  {name}: {why}")
    print(f"{path}: {len(contents['files'])} files, {path.stat().st_size / 1e6:.1f} MB, sha256 {sha256_file(path)}")
    return EXIT_OK
