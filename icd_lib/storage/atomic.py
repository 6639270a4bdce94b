"""Files that are written wholly or not at all, what JSON they hold, and their hashes."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.storage.record_json import as_json

_FULL = ("the disk is full", "the disk quota is used up")  # also said of what a notebook could not write
_NUMBERS = re.compile(r"\[\n\s+-?\d[^][{}\"]*\]")  # a text never has a line break of its own inside JSON
_CURES = {
    errno.ENOSPC: f"{_FULL[0]}; free some space or choose another folder with --out",
    errno.EDQUOT: f"{_FULL[1]}; free some space or choose another folder with --out",
    errno.EFBIG: "the file may not grow that large here; choose another folder with --out",
    errno.EACCES: "permission denied; choose a folder you may write to with --out",
    errno.EPERM: "permission denied; choose a folder you may write to with --out",
    errno.EROFS: "the file system is read-only; choose another folder with --out",
    errno.ENOTDIR: "a part of the path is a file; choose another folder with --out",
    errno.EEXIST: "a file stands where a folder is needed; choose another folder with --out",
    errno.ENAMETOOLONG: "the path is too long; choose another folder with --out",
}


def write_error(path: Path, error: OSError) -> ArtifactError:
    """The `ArtifactError` for an `OSError` met while writing `path`: what failed and the cure."""
    cure = _CURES.get(error.errno or 0, f"{error.strerror or error}; choose another folder with --out")
    return ArtifactError(f"cannot write {path}: {cure}")


def is_full(error: ArtifactError | str) -> bool:
    """Whether an error, or its text, says that there is no space left, so that whatever follows fails too."""
    return any(words in str(error) for words in _FULL)


def atomic_write(path: Path | str, data: bytes | str) -> Path:
    """Write `data` to `path` wholly or not at all (temporary file, fsync, rename); `ArtifactError` on failure."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        raise write_error(path, error) from error
    return path


def put_in_place(partial: Path, folder: Path, old: Path) -> None:
    """Rename the folder `partial` to `folder`; what was there is `old` from then on, or where it was on a failure."""
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise


def sha256_file(path: Path | str) -> str:
    """Hex sha256 of a file's bytes; `ArtifactError` if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}") from error


def to_json(value) -> str:
    """`value` as indented JSON, a list of numbers on one line; records become objects, numpy arrays lists.

    NaN and infinity are refused.

    >>> print(to_json({"D": 2, "pi": [1, 0]}), end="")
    {
      "D": 2,
      "pi": [1, 0]
    }
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False, default=plain) + "\n"
    except ValueError as error:
        raise ArtifactError(f"a file would hold a number that JSON cannot express: {error}") from error
    return _NUMBERS.sub(lambda found: " ".join(found.group().split()).replace("[ ", "[").replace(" ]", "]"), text)


def plain(value):
    """What JSON knows no form for: a record (`icd_lib.storage.record_json`), an array, a path."""
    if dataclasses.is_dataclass(value):
        return as_json(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON; turn it into numbers, strings, lists or dicts")
