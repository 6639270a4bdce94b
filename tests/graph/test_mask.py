"""W' of a mask: complete on the alive, silent on the dead, bytes conserved when sparsified."""

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph import check_w, group_graph, mask_graph


def alive_mask(size, share, seed=0):
    return np.random.default_rng(seed).random(size) < share


def test_small_masks_give_the_complete_graph_on_the_alive():
    alive = alive_mask(40, 0.5)
    expected = np.where(np.outer(alive, alive), 8.0, 0.0)
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(mask_graph(alive, bytes_per_element=2, events=4).toarray(), expected)


def test_activity_weighs_the_edges():
    alive, w = np.array([True, True, False, True]), np.array([1.0, 0.5, 9.0, 0.25])
    W = mask_graph(alive, w, bytes_per_element=4).toarray()
    np.testing.assert_allclose(W[np.triu_indices(4, 1)], [2.0, 0, 1.0, 0, 0.5, 0])


@pytest.mark.parametrize("size", [60, 61, 400])
@pytest.mark.parametrize("with_base", [False, True])
def test_sparsified_graph_is_connected_capped_and_conserves_bytes(size, with_base):
    alive = alive_mask(size, 0.6)
    n = int(alive.sum())
    dense = np.abs(np.corrcoef(np.random.default_rng(1).normal(size=(size, 50))))
    np.fill_diagonal(dense, 0)
    base = sp.csr_array((dense + dense.T) / 2) if with_base else None
    W = check_w(mask_graph(alive, base=base, nnz_cap=10 * size))
    assert W.nnz <= 10 * size
    assert not W[~alive].nnz
    assert connected_components(W[alive][:, alive])[0] == 1
    assert W.sum() / 2 == pytest.approx(4 * n * (n - 1) / 2)


def test_base_orders_the_alive_among_themselves():
    alive = np.array([True] * 4 + [False])
    base = np.zeros((5, 5))
    base[0, 1] = base[1, 0] = 3.0
    base[2, 4] = base[4, 2] = 9.0  # 4 is dead: must not count
    W = mask_graph(alive, base=sp.csr_array(base), base_share=0.5, bytes_per_element=1).toarray()
    assert W[0, 1] == pytest.approx(0.5 + 3.0) and W[2, 3] == pytest.approx(0.5) and not W[4].any()


@pytest.mark.parametrize("n_alive", [0, 1])
def test_nothing_to_touch_together(n_alive):
    alive = np.zeros(5, dtype=bool)
    alive[:n_alive] = True
    assert mask_graph(alive).nnz == 0


def test_one_group_is_the_mask_of_its_elements():
    alive = alive_mask(60, 0.6)
    dense = np.random.default_rng(2).random((60, 60))
    base = sp.csr_array(np.triu(dense, 1) + np.triu(dense, 1).T)
    for graph in (None, base):
        one = mask_graph(alive, base=graph, nnz_cap=600)
        other = group_graph(alive.astype(int) - 1, base=graph, nnz_cap=600)
        assert (one != other).nnz == 0 and one.nnz


@pytest.mark.parametrize("nnz_cap", [200_000, 800])
def test_a_group_is_touched_together_and_nothing_else_is(nnz_cap):
    groups = np.random.default_rng(0).permutation(80) // 20 - 1
    W = check_w(group_graph(groups, nnz_cap=nnz_cap, bytes_per_element=2))
    rows, cols = W.nonzero()
    assert (groups[rows] == groups[cols]).all() and not W[groups == -1].nnz and W.nnz <= nnz_cap
    for number in range(3):
        inside = W[groups == number][:, groups == number]
        assert connected_components(inside)[0] == 1 and inside.sum() / 2 == pytest.approx(2 * 20 * 19 / 2)


def test_base_joins_groups():
    base = np.zeros((5, 5))
    base[0, 2] = base[2, 0] = 3.0
    base[1, 4] = base[4, 1] = 9.0  # 4 is in no group: must not count
    W = group_graph(np.array([0, 0, 1, 1, -1]), base=sp.csr_array(base), bytes_per_element=1).toarray()
    assert (W[0, 1], W[2, 3], W[0, 2]) == pytest.approx((0.5, 0.5, 1.0)) and not W[4].any()


def test_bad_groups_are_refused():
    for groups in ([0.5, 1.0], [], [0, -2], [[0, 1]]):
        with pytest.raises(SolverNotConverged, match="numbers >= -1"):
            group_graph(np.array(groups))


def test_refusals():
    alive = np.array([True, True, False])
    with pytest.raises(SolverNotConverged, match="bool array"):
        mask_graph(np.array([1, 0, 1]))
    with pytest.raises(SolverNotConverged, match=r"weights\[1\] = nan"):
        mask_graph(alive, [1.0, np.nan, 1.0])
    with pytest.raises(SolverNotConverged, match="base has 4 elements but alive has 3"):
        mask_graph(alive, base=sp.csr_array((4, 4)))
    with pytest.raises(ConfigError, match="base_share"):
        mask_graph(alive, base_share=1.5)
    with pytest.raises(ConfigError, match="positive"):
        mask_graph(alive, bytes_per_element=0)
