"""Packages that the project can do without: imported where they work, or the reason why they do not."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from icd_lib.errors import ResourceError

REPORTER = "openvino_telemetry"


def load_optional(package: str, install: str | None = None) -> ModuleType:
    """The module, or `ResourceError` with the cure, whatever its import raises; install: its name for pip.

    A package whose native library does not fit the machine raises what it likes: OSError, RuntimeError, AttributeError.
    """
    install = install or package.partition(".")[0]
    try:
        with _nothing_reported():
            return importlib.import_module(package)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise ResourceError(f"package {package} is not installed; run pip install {install}") from error
        raise ResourceError(
            f"package {package} cannot be loaded ({brief(error)}); run pip install --force-reinstall {install}"
        ) from error


@contextmanager
def _nothing_reported() -> Iterator[None]:
    """Within, OpenVINO and NNCF are imported as where `REPORTER` is not installed, which both can do without.

    With it every model that is converted or quantised sends some 50 events to an analytics service, nobody having been
    asked; each forks this process, while something may be timed. Who imported it before keeps it.
    """
    if REPORTER in sys.modules:
        yield
        return
    sys.modules[REPORTER] = None  # type: ignore[assignment]  # as importlib knows a module that is not to be had
    try:
        yield
    finally:
        del sys.modules[REPORTER]


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
