"""Normalization: the formula, the contract, and what it does not change."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.errors import ConfigError
from icd_lib.graph import build_w, check_w, normalize_graph, planted_graph


@st.composite
def graphs(draw):
    D = draw(st.integers(1, 7))
    weight = st.one_of(st.just(0.0), st.floats(2.0**-20, 2.0**20))
    upper = np.triu(np.array(draw(st.lists(weight, min_size=D * D, max_size=D * D))).reshape(D, D), 1)
    return check_w(sp.csr_array(upper + upper.T))


@settings(deadline=None)  # the first call compiles
@given(graphs(), st.sampled_from(["row", "sym"]))
def test_equals_the_formula_and_holds_the_contract(W, how):
    dense = W.toarray()
    k = np.where(dense.sum(1) > 0, dense.sum(1), 1)
    expected = {"row": (dense / k[:, None] + dense / k) / 2, "sym": dense / np.sqrt(np.outer(k, k))}[how]
    normal = check_w(normalize_graph(W, how))
    np.testing.assert_allclose(normal.toarray(), expected, rtol=1e-12)
    assert normal.indices.tolist() == W.indices.tolist()


def test_scale_has_no_effect_once_normalized_and_none_changes_nothing():
    W = check_w(planted_graph(60, degree=8)[0])
    assert normalize_graph(W, "none") is W
    for how in ("row", "sym"):
        np.testing.assert_allclose(normalize_graph(W * 4, how).data, normalize_graph(W, how).data, rtol=1e-12)
        assert not np.array_equal(normalize_graph(W, how).data, W.data)


def test_a_regular_graph_normalizes_to_row_sums_of_one():
    ring = sp.csr_array(np.roll(np.eye(6), 1, 1) + np.roll(np.eye(6), -1, 1)) * 3.0
    for how in ("row", "sym"):
        np.testing.assert_allclose(build_w(ring, normalize=how).sum(axis=1), 1)


def test_refusal():
    with pytest.raises(ConfigError, match="normalize is one of .*did you mean 'none'"):
        normalize_graph(sp.csr_array((2, 2)), "non")
