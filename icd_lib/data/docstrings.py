"""Docstrings of installed BSD-licensed scientific packages: short technical prose that needs no download."""

import functools
import hashlib
import importlib
import inspect
import re
from importlib import metadata

from icd_lib.data.splits import normalise

MIN_WORDS = 5
PACKAGES = ("numpy", "scipy", "scikit-learn", "torch")
_MODULES = (
    "numpy numpy.fft numpy.linalg numpy.ma numpy.polynomial "
    "scipy.cluster.hierarchy scipy.fft scipy.integrate scipy.interpolate scipy.io scipy.linalg scipy.ndimage "
    "scipy.optimize scipy.signal scipy.sparse scipy.sparse.csgraph scipy.sparse.linalg scipy.spatial "
    "scipy.spatial.distance scipy.special scipy.stats "
    "sklearn.cluster sklearn.decomposition sklearn.ensemble sklearn.linear_model sklearn.metrics "
    "sklearn.model_selection sklearn.preprocessing torch torch.nn torch.nn.functional torch.optim"
).split()
_NOT_PROSE = re.compile(r">>>|[-=~]{3,}|^\.\.|^[*\-+|:]|\S+ : \S|`{2,}|\\[a-z]|https?:")


def docstrings_provenance() -> dict:
    """Name, package versions, licence, number of texts and their sha256."""
    texts = [text for text, _ in labelled_docstrings()]
    return {
        "name": "prose of public docstrings",
        "packages": {package: metadata.version(package) for package in PACKAGES},
        "licence": "BSD-3-Clause and the like",
        "source": "embedded",
        "sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(),
        "items": len(texts),
    }


@functools.cache
def labelled_docstrings() -> tuple[tuple[str, int], ...]:
    """Distinct paragraphs of prose in public docstrings, each with the number of its module.

    Deterministic for installed versions; empty when Python runs with -OO, which strips docstrings.
    """
    texts: dict[str, tuple[str, int]] = {}
    # All of them first: one package may add to another's docstrings when it is imported.
    for number, module in enumerate([importlib.import_module(name) for name in _MODULES]):
        names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
        for name in sorted(names):
            try:
                thing = getattr(module, name, None)
            except ImportError:  # announced by the module but switched off
                continue
            for paragraph in _documented(thing):
                texts.setdefault(normalise(paragraph), (paragraph, number))
    return tuple(texts.values())


def _documented(thing) -> list[str]:
    """Paragraphs of prose of a callable, and of a class's own public methods."""
    if not callable(thing):
        return []
    owners = [thing]
    if inspect.isclass(thing):
        owners += [member for name, member in sorted(vars(thing).items()) if not name.startswith("_")]
    return [text for owner in owners if isinstance(owner.__doc__, str) for text in prose(owner.__doc__)]


def prose(docstring: str) -> list[str]:
    """Paragraphs that are whole sentences, each in one line: no signatures, lists, formulas, sections or examples.

    >>> prose("f(x)\\n\\n    Sine of an angle\\n    in radians.\\n\\n    Notes\\n    -----\\n    Not this one.")
    ['Sine of an angle in radians.']
    """
    paragraphs = []
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        line = re.sub(r"\s+", " ", paragraph).strip()
        whole = line[:1].isupper() and line[-1:] == "."
        if whole and len(line.split()) >= MIN_WORDS and not _NOT_PROSE.search(paragraph):
            paragraphs.append(line.replace("`", ""))
    return paragraphs
