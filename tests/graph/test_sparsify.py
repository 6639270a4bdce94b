"""Thresholding: heaviest first, ties by index."""

import numpy as np
import pytest

from icd_lib.errors import ConfigError
from icd_lib.graph.sparsify import build_symmetric, check_nnz_cap, find_heaviest


def test_equals_a_stable_sort_for_many_ties():
    weights = np.random.default_rng(0).integers(0, 5, 200).astype(float)
    for count in (0, 1, 7, 100, 199, 200, 300):
        expected = np.sort(np.argsort(-weights, kind="stable")[:count])
        np.testing.assert_array_equal(find_heaviest(weights, count), expected)


def test_symmetric_graph_adds_repeated_edges():
    graph = build_symmetric(np.array([0, 0]), np.array([2, 2]), np.array([1.0, 0.5]), 3)
    assert graph.toarray().tolist() == [[0, 0, 1.5], [0, 0, 0], [1.5, 0, 0]]


@pytest.mark.parametrize("cap", [0, 1, -4, 2.0, True, "9"])
def test_refuses_a_cap_that_holds_no_edge(cap):
    with pytest.raises(ConfigError, match="nnz_cap"):
        check_nnz_cap(cap)
