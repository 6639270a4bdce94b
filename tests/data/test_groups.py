"""Domains are dealt so that no text calibrates, chooses and judges, and so that the deal follows its own seed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.data.domains import check_groups, group_domains, groups
from icd_lib.data.domains.groups import JUDGED_SHARE, SPLITS, VALIDATION_SHARE, even_shares, some_documents
from icd_lib.data.splits import normalise
from icd_lib.errors import ConfigError, ResourceError
from tests.tiny_domains import plain_domain, toy_domain

SIZES = {"s1": 60, "s2": 24, "c1": 30, "u1": 40, "u2": 20}


@pytest.fixture
def given_domains():
    """Two seen domains, one that chooses, two unseen ones; every document has three texts (u2's: one)."""
    return {
        name: toy_domain(name, documents=size // 3, seed=i) if name != "u2" else toy_domain(name, size, 1, seed=i)
        for i, (name, size) in enumerate(SIZES.items())
    }


def deal(domains, seen=("s1", "s2"), selection=("c1",), unseen=("u1", "u2"), **options):
    return group_domains(list(seen), list(selection), list(unseen), given=domains, **options)


def forms(texts):
    return {normalise(text) for text in texts}


def texts_of(found):
    """Split → normalised texts, calibration among them."""
    every = {
        split: forms(t for text in domains.values() for t in text.texts) for split, domains in found.judged.items()
    }
    return every | {"calibration": forms(t for texts in found.calibration.values() for t in texts)}


SPELLINGS = (str.lower, str.upper, lambda text: text.replace(" ", "-"), lambda text: f"«{text}!»")
PLANTED = st.lists(
    st.tuples(
        st.sampled_from(list(SIZES)), st.sampled_from(list(SIZES)), st.integers(0, 19), st.sampled_from(SPELLINGS)
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(PLANTED, st.integers(0, 5), st.integers(1, 30), st.integers(1, 20), st.booleans())
def test_no_normalised_text_is_in_two_splits(planted, seed, test_items, validation_items, choosing):
    """Texts are copied from domain to domain, spelled otherwise; each domain's own stay distinct."""
    domains = {name: toy_domain(name, size // 2, 2, seed=i) for i, (name, size) in enumerate(SIZES.items())}
    for source, target, row, spell in planted:
        texts = list(domains[target].texts)
        copied = spell(domains[source].texts[row % SIZES[source]])
        if normalise(copied) not in forms(texts):
            texts[row % SIZES[target]] = copied
            domains[target] = dataclasses.replace(domains[target], texts=texts)
    selection = ("c1",) if choosing else ()
    found = deal(domains, selection=selection, test_items=test_items, validation_items=validation_items, seed=seed)
    texts = texts_of(found)
    for one in texts:
        for other in texts:
            assert one == other or not texts[one] & texts[other], (one, other)
    for name in ("s1", "s2"):  # what a seen domain has is somewhere, or was said to be left out
        parts = [found.judged[split].get(name, ()) for split in ("seen", "validation")] + [found.calibration[name]]
        assert sum(map(len, parts)) + found.dropped.get(name, 0) == SIZES[name]


@pytest.mark.parametrize("seed", range(3))
def test_a_duplicate_leaves_what_weighs_less(given_domains, seed):
    """Unseen text judges and keeps its copy; what chooses keeps its copy against what calibrates."""
    shared = {"u": "said of all three", "c": "said of two of them"}
    for name, words in (("u1", "u"), ("c1", "u"), ("s1", "u"), ("c1", "c"), ("s1", "c")):
        text = given_domains[name]
        place = 0 if words == "u" else 1
        texts = [*text.texts[:place], shared[words].title(), *text.texts[place + 1 :]]
        given_domains[name] = dataclasses.replace(text, texts=texts)
    texts = texts_of(deal(given_domains, seed=seed))
    where = {
        words: [split for split, found in texts.items() if normalise(text) in found] for words, text in shared.items()
    }
    assert where == {"u": ["unseen"], "c": ["selection"]}


def test_documents_are_never_divided(given_domains):
    for selection in ((), ("c1",)):
        found = deal(given_domains, selection=selection, test_items=25, validation_items=7, seed=3)
        for name in ("s1", "s2"):
            number = dict(zip(given_domains[name].texts, given_domains[name].documents.tolist(), strict=True))
            judged = [
                found.judged[split][name].texts for split in ("seen", "validation") if name in found.judged[split]
            ]
            parts = [{number[text] for text in texts} for texts in (*judged, found.calibration[name])]
            assert len(parts) == (2 if selection else 3) and all(parts)
            assert sum(map(len, parts)) == len(set.union(*parts)) == len(set(number.values()))


def test_sizes_are_as_asked_or_as_the_shares_allow(given_domains):
    found = deal(given_domains, selection=(), test_items=1000, validation_items=1000)
    assert [len(text) for text in found.judged["unseen"].values()] == [39, 20], "whole domains, where they are small"
    for name, size in (("s1", 60), ("s2", 24)):
        judged, validation = len(found.judged["seen"][name]), len(found.judged["validation"][name])
        assert JUDGED_SHARE * size - 3 < judged <= JUDGED_SHARE * size
        assert VALIDATION_SHARE * size - 3 < validation <= VALIDATION_SHARE * size
        assert len(found.calibration[name]) == size - judged - validation
    few = deal(given_domains, test_items=10, validation_items=6)
    assert {len(text) for text in few.judged["unseen"].values()} == {9, 10}, "whole documents of three"
    assert len(few.judged["selection"]["c1"]) == 6 and len(few.judged["seen"]["s1"]) == 3, "of 5 that may be"
    assert few.judged["validation"] == {}, "other domains choose"


def test_some_documents_are_whole_and_one_at_least():
    domain = toy_domain(documents=6, per_document=4)
    drawn, rest = some_documents(domain, 9, np.random.default_rng(0))
    assert len(drawn) == 8 and len(rest) == 16 and not set(drawn.documents) & set(rest.documents)
    assert len(some_documents(domain, 1, np.random.default_rng(0))[0]) == 4, "a document is not cut to fit"
    everything, nothing = some_documents(domain, 24, np.random.default_rng(0))
    assert everything.sha256 == domain.sha256 and len(nothing) == 0


def test_the_deal_is_a_function_of_its_seed(given_domains):
    first, again, other = (deal(given_domains, test_items=12, seed=seed).describe() for seed in (0, 0, 1))
    assert first == again
    assert first["judged"]["unseen"] != other["judged"]["unseen"] and first["judged"]["seen"] != other["judged"]["seen"]


def test_what_is_judged_unseen_does_not_follow_what_calibrates(given_domains):
    one = deal(given_domains, test_items=12)
    other = deal(given_domains, seen=("s2",), test_items=12)
    for name in ("u1", "u2"):
        assert one.judged["unseen"][name].sha256 == other.judged["unseen"][name].sha256


def test_a_domain_in_two_groups_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"data\.unseen names the domain 'films', which is in data\.seen already"):
        check_groups(["news", "films"], ["verses"], ["films"])
    with pytest.raises(ConfigError, match=r"data\.selection names the domain 'verses', which is in data\.selection"):
        check_groups(["news"], ["verses", "verses"], [])
    with pytest.raises(ConfigError, match=r"data\.selection .*'s1'.* data\.seen"):
        group_domains(["s1"], ["s1"], [], given={"s1": toy_domain("s1")})
    check_groups(["news"], ["verses"], ["films"])


@pytest.fixture
def registry(monkeypatch, given_domains):
    """`load_domain` over the toy domains, of which those in `absent` have not been fetched."""
    absent = set()

    def load(name):
        if name in absent:
            raise ResourceError(f"the text of {name} is missing; run: make fetch_data")
        return given_domains[name]

    monkeypatch.setattr(groups, "load_domain", load)
    return absent


def test_a_missing_package_leaves_its_domain_out_and_is_listed(registry):
    registry |= {"u1", "s2"}
    found = group_domains(["s1", "s2"], ["c1"], ["u1", "u2"])
    assert list(found.calibration) == ["s1"] and list(found.judged["unseen"]) == ["u2"]
    assert found.missing == {name: f"the text of {name} is missing; run: make fetch_data" for name in ("s2", "u1")}
    assert found.describe()["missing"] == found.missing


def test_with_nothing_to_calibrate_on_the_reasons_are_told(registry):
    registry |= {"s1", "s2"}
    with pytest.raises(ResourceError, match="no text to calibrate on: the text of s1 is missing.*; the text of s2 is"):
        group_domains(["s1", "s2"], ["c1"], ["u1"])
    with pytest.raises(ResourceError, match="data.seen is empty"):
        group_domains([], ["c1"], ["u1"])


def test_a_given_domain_comes_before_the_registry(registry):
    mine = toy_domain("s1", documents=5, seed=9)
    found = group_domains(["s1"], [], [], given={"s1": mine})
    assert set(found.calibration["s1"]) < set(mine.texts)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 60), min_size=1), st.integers(0, 300))
def test_shares_add_up_and_are_as_even_as_sizes_allow(sizes, count):
    shares = even_shares(sizes, count)
    assert list(shares) == list(sizes) and sum(shares.values()) == min(count, sum(sizes.values()))
    assert all(0 <= shares[name] <= size for name, size in sizes.items())
    for name, size in sizes.items():  # who gets less than another one has no more to give
        assert shares[name] == size or shares[name] >= max(shares.values()) - 1
    more = even_shares(sizes, count + 1)
    assert all(more[name] >= share for name, share in shares.items())


def test_a_draw_is_nested_even_seeded_and_of_calibration_texts(given_domains):
    found = deal(given_domains, test_items=10)
    sizes = {name: len(texts) for name, texts in found.calibration.items()}
    draws = [found.draw(count, seed=4) for count in (7, 20, 33, 10**6)]
    for small, large in zip(draws, draws[1:], strict=False):
        assert set(small) < set(large) and len(large) == len(set(large))
    owner = {text: name for name, texts in found.calibration.items() for text in texts}
    counts = [{name: sum(owner[text] == name for text in draw) for name in sizes} for draw in draws]
    assert counts[:2] == [{"s1": 4, "s2": 3}, {"s1": 10, "s2": 10}] and counts[3] == sizes
    assert found.draw(20, seed=4) == draws[1] and set(found.draw(20, seed=5)) != set(draws[1])


def test_the_description_counts_what_there_is(given_domains):
    text = given_domains["s1"]
    copied = dataclasses.replace(text, texts=[given_domains["u2"].texts[0], *text.texts[1:]])
    found = deal(given_domains | {"s1": copied}, test_items=21)
    told = found.describe()
    assert told["dropped_duplicates"] == found.dropped == {"s1": 1}
    assert told["calibration"] == {name: len(texts) for name, texts in found.calibration.items()}
    assert list(told["judged"]) == list(SPLITS)
    unseen = found.judged["unseen"]["u1"]
    assert told["judged"]["unseen"]["u1"] == {"texts": len(unseen), "sha256": unseen.sha256}
    assert told["provenance"] == {name: {"package": "toy"} for name in SIZES}


def test_where_nothing_is_left_to_calibrate_on_the_domains_are_named(given_domains):
    one = plain_domain("s", [f"text number {i}" for i in range(10)], np.zeros(10))  # its only document judges
    copied = dataclasses.replace(given_domains["u2"], name="s")
    for domain in (one, copied):
        with pytest.raises(ResourceError, match=r"all of s is judged or is in domains that judge; .*data\.seen"):
            group_domains(["s"], [], ["u2"], given=given_domains | {"s": domain})
