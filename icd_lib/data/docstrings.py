"""Text from another domain: docstrings of installed BSD-licensed scientific packages.

A few of them are mixed into the calibration, so that a pruned encoder keeps its function on text unlike the task's too;
the others tell how close it stays to the dense one there.
"""

import functools
import hashlib
import importlib
import inspect
import re
from importlib import metadata

import numpy as np

from icd_lib.data.splits import normalise
from icd_lib.errors import ResourceError

MIN_WORDS = 5
_MODULES = (
    "numpy numpy.fft numpy.linalg numpy.ma numpy.polynomial "
    "scipy.cluster.hierarchy scipy.fft scipy.integrate scipy.interpolate scipy.io scipy.linalg scipy.ndimage "
    "scipy.optimize scipy.signal scipy.sparse scipy.sparse.csgraph scipy.sparse.linalg scipy.spatial "
    "scipy.spatial.distance scipy.special scipy.stats"
).split()


def split_docstrings(calibration: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """`calibration` docstrings to calibrate on, and all the others, which no calibration sees.

    Distinct first paragraphs of public numpy and scipy docstrings; deterministic for installed versions and seed.
    Raises `ResourceError` when there are too few (Python run with -OO strips docstrings).
    """
    texts = _all_docstrings()
    if calibration >= len(texts):
        raise ResourceError(
            f"{calibration} docstrings are wanted for calibration and numpy and scipy have {len(texts)}; "
            "lower data.other_domain_texts, and run Python without -OO"
        )
    order = np.random.default_rng(seed).permutation(len(texts))
    return [texts[i] for i in order[:calibration]], [texts[i] for i in order[calibration:]]


def docstrings_provenance() -> dict:
    """Name, package versions, licence, number of texts and their sha256."""
    texts = _all_docstrings()
    return {
        "name": "first paragraphs of public docstrings",
        "packages": {package: metadata.version(package) for package in ("numpy", "scipy")},
        "licence": "BSD-3-Clause",
        "source": "embedded",
        "sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "items": len(texts),
    }


@functools.cache
def _all_docstrings() -> tuple[str, ...]:
    texts: dict[str, str] = {}
    for module_name in _MODULES:
        module = importlib.import_module(module_name)
        for name in sorted(module.__all__):
            for paragraph in _documented(getattr(module, name, None)):
                if len(paragraph.split()) >= MIN_WORDS:
                    texts.setdefault(normalise(paragraph), paragraph)
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
