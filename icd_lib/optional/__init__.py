"""Packages that the project can do without: imported where they work, or the reason why they do not."""

import importlib
import importlib.util
from types import ModuleType

from icd_lib.errors import ResourceError


def load_optional(package: str, install: str | None = None) -> ModuleType:
    """The module, or `ResourceError` with the cure, whatever its import raises; install: its name for pip.

    A package whose native library does not fit the machine raises what it likes: OSError, RuntimeError, AttributeError.
    """
    install = install or package.partition(".")[0]
    try:
        return importlib.import_module(package)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise ResourceError(f"package {package} is not installed; run pip install {install}") from error
        raise ResourceError(
            f"package {package} cannot be loaded ({brief(error)}); run pip install --force-reinstall {install}"
        ) from error


def find_optional(package: str, install: str) -> None:
    """Raise `ResourceError` with the cure where a package is not installed; it is looked for, and not imported."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise ResourceError(f"package {package} is not installed; run pip install {install}")


def brief(error: BaseException) -> str:
    """An error of somebody else's code in one line.

    >>> brief(OSError("libcuda.so: cannot open\\nmore"))
    'OSError: libcuda.so: cannot open'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
