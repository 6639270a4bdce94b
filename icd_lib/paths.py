"""Where things lie: the project, and paths that people give."""

import os
from pathlib import Path, PurePosixPath

from icd_lib.errors import ConfigError


def project_root() -> Path:
    """Folder that holds pyproject.toml above `icd_lib`, else the working directory."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def home_folder() -> Path | None:
    """The user's home folder; None where there is no such user or folder (a container that runs as any number)."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_dir() else None


def user_path(given: str | Path) -> Path:
    """A path that a person gave, with `~` spelled out; `ConfigError` unless a file can have this name."""
    try:
        path = Path(given).expanduser()
        parts = os.fsencode(path).split(b"/")
    except (RuntimeError, ValueError) as error:  # nobody's home, or characters that no file name has
        raise ConfigError(f"{str(given)[:80]!r} is no path: {error}") from error
    if any(b"\0" in part or len(part) > 255 for part in parts) or sum(map(len, parts)) > 4000:
        raise ConfigError(f"{str(given)[:80]!r} is no path: it is too long or holds a null character")
    return path


MAX_NAME = 400


def unsafe_name(name: str) -> str | None:
    """Why a path in a package could leave its folder or be read as another, None if it cannot.

    >>> unsafe_name("runs/bert/run.log"), unsafe_name("../x")
    (None, 'leaves its folder')
    """
    if not name or len(name) > MAX_NAME:
        return "empty or too long"
    if any(ord(char) < 32 or ord(char) == 127 for char in name) or "\\" in name or ":" in name:
        return "has a control character, a backslash or a colon"
    if any("\ud800" <= char <= "\udfff" for char in name):
        return "has characters that are no text"
    if name.startswith("/") or ".." in name.split("/"):
        return "leaves its folder"
    if PurePosixPath(name).as_posix() != name or name.startswith("./") or name == ".":
        return "is not in its shortest form"
    return None
