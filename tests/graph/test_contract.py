"""The contract of W: what passes unchanged, what is refused and how the offender is named."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.errors import SolverNotConverged
from icd_lib.graph import check_w, hash_graph


def test_canonical_form_is_independent_of_how_the_graph_was_stored():
    dense = np.array([[0, 1, 0], [1, 0, 2.5], [0, 2.5, 0]])
    scrambled = sp.coo_array(([2.0, 1, 1, 2.5, 0.5, 0.0], ([1, 0, 1, 2, 1, 0], [2, 1, 0, 1, 2, 2])), shape=(3, 3))
    a, b = check_w(sp.csc_array(dense)), check_w(scrambled)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.data.dtype == np.float64 and isinstance(a, sp.csr_array)


def test_the_given_graph_is_not_changed():
    W = sp.csr_array(np.array([[0, 1.0], [1.0, 0]]))
    check_w(W).data[:] = 7
    assert W.data.tolist() == [1.0, 1.0]


def test_integer_weights_and_empty_graphs_pass():
    assert check_w(sp.csr_array(np.array([[0, 3], [3, 0]]))).data.tolist() == [3.0, 3.0]
    assert check_w(sp.csr_array((1, 1))).nnz == 0
    assert check_w(sp.csr_array((5, 5))).shape == (5, 5)


@pytest.mark.parametrize(
    ("dense", "message"),
    [
        ([[0, 1, 0], [1, 0, 2.0], [0, 3.0, 0]], r"W\[1, 2\] = 2.0 but W\[2, 1\] = 3.0"),
        ([[0, 0, 0], [0, 0, 0], [4.0, 0, 0]], r"W\[0, 2\] = 0.0 but W\[2, 0\] = 4.0"),
        ([[0, -1.0], [-1.0, 0]], r"W\[0, 1\] = -1.0 is negative"),
        ([[0, np.nan], [np.nan, 0]], r"W\[0, 1\] = nan is not finite"),
        ([[0, 1, np.inf], [1, 0, 0], [np.inf, 0, 0]], r"W\[0, 2\] = inf is not finite"),
        ([[0, 1.0], [1.0, 5.0]], r"W\[1, 1\] = 5.0 is on the diagonal"),
    ],
)
def test_refuses_and_names_the_first_offender(dense, message):
    with pytest.raises(SolverNotConverged, match=message):
        check_w(sp.csr_array(np.array(dense, dtype=float)))


@pytest.mark.parametrize(
    ("W", "message"),
    [
        (np.zeros((2, 2)), "scipy.sparse matrix, got ndarray"),
        (sp.csr_array((2, 3)), r"square.*\(2, 3\)"),
        (sp.coo_array((0, 0)), r"at least one element.*\(0, 0\)"),
        (sp.csr_array((2, 2), dtype=complex), "dtype complex128"),
        (sp.csr_array((2, 2), dtype=bool), "dtype bool"),
    ],
)
def test_refuses_wrong_type_shape_and_dtype(W, message):
    with pytest.raises(SolverNotConverged, match=message):
        check_w(W)


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 6), st.data())
def test_accepts_exactly_the_matrices_that_hold_the_contract(D, data):
    weight = st.sampled_from([0.0, 1.0, 1.0, 2.5, -1.0, np.inf, np.nan])
    dense = np.array(data.draw(st.lists(weight, min_size=D * D, max_size=D * D))).reshape(D, D)
    if data.draw(st.booleans()):
        dense = np.where(dense > 0, dense, 0)
    if data.draw(st.booleans()):
        dense = np.maximum(dense, dense.T) * (1 - np.eye(D)) if np.isfinite(dense).all() else np.triu(dense, 1)
    holds = np.isfinite(dense).all() and (dense >= 0).all() and not dense.diagonal().any() and (dense == dense.T).all()
    stored = sp.csr_array(dense)
    if holds:
        np.testing.assert_array_equal(check_w(stored).toarray(), dense)
    else:
        with pytest.raises(SolverNotConverged, match=r"W\[\d, \d\] = "):
            check_w(stored)


def test_the_first_asymmetry_is_named_as_the_first_of_its_pair():
    rng = np.random.default_rng(0)
    for _ in range(50):
        upper = np.triu(rng.random((9, 9)) * (rng.random((9, 9)) < 0.5), 1)
        dense = upper + upper.T
        i, j = rng.choice(9, 2, replace=False)
        dense[i, j] = 0.0 if dense[i, j] else 5.0
        low, high = sorted((int(i), int(j)))
        with pytest.raises(SolverNotConverged, match=rf"W\[{low}, {high}\] = .* but W\[{high}, {low}\] = "):
            check_w(sp.csr_array(dense))


def test_flags_that_scipy_remembers_are_not_believed():
    W = sp.csr_array((np.array([1.0, 2, 1, 2]), np.array([1, 2, 0, 0]), np.array([0, 2, 3, 4])), shape=(3, 3))
    assert W.has_canonical_format
    W.indices[:2], W.data[:2] = [2, 1], [2, 1]
    assert W.has_canonical_format  # no longer true
    assert check_w(W).indices.tolist() == [1, 2, 0, 0]


def test_impossible_columns_and_pointers_are_refused_before_they_are_followed():
    for indices, indptr in (([1, 7], [0, 1, 2]), ([1, -1], [0, 1, 2]), ([1, 0], [0, 2, 1])):
        W = sp.csr_array(np.array([[0, 1.0], [1.0, 0]]))
        W.indices, W.indptr = np.array(indices, np.int32), np.array(indptr, np.int32)
        with pytest.raises(SolverNotConverged, match=r"row \d of the access graph .* outside 0..1"):
            check_w(W)


def test_64_bit_indices_make_the_same_bytes():
    W = sp.csr_array(np.array([[0, 1.0], [1.0, 0]]))
    wide = sp.csr_array((2, 2))
    wide.data, wide.indices, wide.indptr = W.data, W.indices.astype(np.int64), W.indptr.astype(np.int64)
    assert check_w(wide).indices.dtype == check_w(wide).indptr.dtype == np.int32
    assert hash_graph(check_w(wide)) == hash_graph(check_w(W))
