"""Docstrings of installed BSD-licensed scientific packages: short technical prose that needs no download."""

import functools
import hashlib
import importlib
import inspect
import re
from importlib import metadata

from icd_lib.data.splits import normalise

MIN_WORDS = 5
_MODULES = (
    "numpy numpy.fft numpy.linalg numpy.ma numpy.polynomial "
    "scipy.cluster.hierarchy scipy.fft scipy.integrate scipy.interpolate scipy.io scipy.linalg scipy.ndimage "
    "scipy.optimize scipy.signal scipy.sparse scipy.sparse.csgraph scipy.sparse.linalg scipy.spatial "
    "scipy.spatial.distance scipy.special scipy.stats"
).split()


def docstrings_provenance() -> dict:
    """Name, package versions, licence, number of texts and their sha256."""
    texts = [text for text, _ in labelled_docstrings()]
    return {
        "name": "first paragraphs of public docstrings",
        "packages": {package: metadata.version(package) for package in ("numpy", "scipy")},
        "licence": "BSD-3-Clause",
        "source": "embedded",
        "sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "items": len(texts),
    }


@functools.cache
def labelled_docstrings() -> tuple[tuple[str, int], ...]:
    """Distinct first paragraphs of public numpy and scipy docstrings, each with the number of its module."""
    texts: dict[str, tuple[str, int]] = {}
    for number, module_name in enumerate(_MODULES):
        module = importlib.import_module(module_name)
        for name in sorted(module.__all__):
            for paragraph in _documented(getattr(module, name, None)):
                if len(paragraph.split()) >= MIN_WORDS:
                    texts.setdefault(normalise(paragraph), (paragraph, number))
    return tuple(texts.values())


def _documented(thing) -> list[str]:
    """First prose paragraph of a callable, and of a class's own public methods."""
    if not callable(thing):
        return []
    owners = [thing]
    if inspect.isclass(thing):
        owners += [member for name, member in sorted(vars(thing).items()) if not name.startswith("_")]
    return [_first_paragraph(owner.__doc__) for owner in owners if isinstance(owner.__doc__, str)]


def _first_paragraph(docstring: str) -> str:
    """The first paragraph that is prose: not a call signature (`sin(x, /, ...)`), in one line.

    >>> _first_paragraph("f(x)\\n\\n    Sine of an\\n    angle.\\n\\n    More.")
    'Sine of an angle.'
    """
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        line = re.sub(r"\s+", " ", paragraph).strip()
        if line and not re.match(r"[\w.]+\s?\(", line):
            return line
    return ""
