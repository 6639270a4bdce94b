"""The contract of W: what passes unchanged, what is refused and how the offender is named."""

import numpy as np
import pytest
import scipy.sparse as sp

from icd_lib.errors import SolverNotConverged
from icd_lib.graph import check_w


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
