"""The folder of an export: it appears whole or not at all, and replaces nothing but an earlier export."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from icd_lib.deploy.record import is_export
from icd_lib.errors import ArtifactError
from icd_lib.paths import user_path
from icd_lib.storage.atomic import put_in_place, write_error


def check_place(folder: Path | str, *, overwrite: bool = False) -> Path:
    """The folder as a path; `ArtifactError` where something lies there that must not be lost."""
    folder = user_path(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ArtifactError(f"{folder} is a file or a link; choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        if not is_export(folder):
            raise ArtifactError(f"{folder} is not empty and holds no export; choose another folder")
        if not overwrite:
            raise ArtifactError(
                f"{folder} holds an export already; pass overwrite=True to replace it, or another folder"
            )
    return folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place at the end; on an error nothing is changed.

    What an export to the same place left when it was killed is removed first. Raises `ArtifactError` for whatever the
    file system refuses, within too.
    """
    own = f".{folder.name}.{os.getpid():08x}"
    partial, old = folder.with_name(f"{own}.partial"), folder.with_name(f"{own}.old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        partial.mkdir()
        yield partial
        put_in_place(partial, folder, old)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def clear_leftovers(folder: Path) -> int:
    """Remove what killed exports to `folder` left beside it, after an earlier export is back; returns how many."""
    pattern = re.compile(rf"\.{re.escape(folder.name)}\.([0-9a-f]{{8}})\.(partial|old)")
    found = [(path, pattern.fullmatch(path.name)) for path in folder.parent.iterdir()]
    left = [(path, match[2]) for path, match in found if match and not _is_alive(int(match[1], 16))]
    for path, what in left:
        if what == "old" and not folder.exists():
            path.rename(folder)  # it was killed between the two renames
        else:
            shutil.rmtree(path)
    return len(left)


def _is_alive(pid: int) -> bool:
    return pid == os.getpid() or psutil.pid_exists(pid)
