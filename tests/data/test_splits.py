"""Items that share a normalised text in any view are one group, and no group is divided."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.data.splits import group_by_text, normalise, split_groups
from icd_lib.errors import ConfigError


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("In the beginning, God --", "in the BEGINNING god", True),
        ("it's a_b", "it s a b", True),
        ("  a\tb\nc ", "a b c", True),
        ("Ärger", "ärger", True),
        ("ab", "a b", False),
        ("3.5", "35", False),
    ],
)
def test_texts_count_as_equal_without_case_and_punctuation(one, other, equal):
    assert (normalise(one) == normalise(other)) is equal
    assert normalise(normalise(one)) == normalise(one)


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
    assert np.array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(len(pairs)))


def test_splits_are_functions_of_the_seed():
    groups = np.arange(50)
    first, again, other = (split_groups(groups, {"a": 10, "b": 5}, "rest", seed) for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert [len(first[name]) for name in ("a", "b", "rest")] == [10, 5, 35]
    assert not np.array_equal(first["a"], other["a"])


def test_a_group_too_large_for_any_split_goes_to_the_rest():
    groups = np.array([0, 0, 0, 0, 4, 5])
    assert split_groups(groups, {"test": 1, "validation": 1}, "rest", 0)["rest"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="exactly"):
        split_groups(groups, {"test": 3}, "rest", 0)


@pytest.mark.parametrize(
    "sizes", [{"test": 7}, {"test": -1}, {"test": 6, "validation": 0}, {"test": 3, "validation": 3}]
)
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ConfigError, match="the data has 6; lower data.test_items or data.validation_items"):
        split_groups(np.arange(6), sizes, "rest", 0)
