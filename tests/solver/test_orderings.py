"""Every ordering on every odd graph is a permutation; each finds what it is good at."""

import ctypes
import sys
import threading

import numba
import numpy as np
import pytest
from solver_instances import ODD_GRAPHS, path, planted_blocks, random_graph, two_parts_and_a_loner

from icd_lib.axes.permutation import check_permutation
from icd_lib.errors import ResourceError
from icd_lib.graph import check_w
from icd_lib.graph.mock import band_graph, planted_graph
from icd_lib.solver import ORDERINGS, CostConfig, evaluate_cost, graph_kernels, spectral
from icd_lib.solver.metis import bisected
from icd_lib.solver.orderings import louvain_communities


@pytest.mark.parametrize("method", ORDERINGS)
@pytest.mark.parametrize("kind", ODD_GRAPHS)
def test_gives_the_same_permutation_twice(method, kind):
    W = check_w(ODD_GRAPHS[kind])
    first, second = (ORDERINGS[method](W, CostConfig(g=4), 0) for _ in range(2))
    assert first.dtype == np.int64
    np.testing.assert_array_equal(check_permutation(first, W.shape[0]), second)


def test_another_thread_that_draws_random_numbers_changes_no_bisection():
    rand = ctypes.CDLL(None).rand
    rand.argtypes, rand.restype = [], ctypes.c_int

    @numba.njit(nogil=True)
    def draw(stop):
        while not stop[0]:
            rand()

    W, stop = check_w(ODD_GRAPHS["random"]), np.ones(1, dtype=np.int64)
    draw(stop)  # compiles
    quiet = ORDERINGS["bisection"](W, CostConfig(g=4), 0)
    stop[0] = 0
    thread = threading.Thread(target=draw, args=(stop,))
    thread.start()
    try:
        noisy = [ORDERINGS["bisection"](W, CostConfig(g=4), 0) for _ in range(6)]
    finally:
        stop[0] = 1
        thread.join()
    for order in noisy:
        np.testing.assert_array_equal(order, quiet)


@pytest.mark.parametrize("seed", [0, 7])
def test_a_process_of_its_own_partitions_as_this_one_does(seed):
    graph = check_w(ODD_GRAPHS["random"])
    weights = np.maximum(1, np.rint(graph.data * (1000 / graph.data.max()))).astype(np.int64)
    found = [bisected(graph.indptr, graph.indices, weights, 8, seed, apart=apart) for apart in (False, True)]
    np.testing.assert_array_equal(*found)


def test_without_a_process_of_its_own_it_says_so(monkeypatch):
    monkeypatch.setattr("icd_lib.solver.metis.sys.executable", "/nowhere/python")
    with pytest.raises(ResourceError, match="cannot be started"):
        bisected(np.array([0, 1, 2]), np.array([1, 0]), np.array([1, 1]), 2, 0, apart=True)


@pytest.mark.parametrize("method", [m for m in ORDERINGS if m != "identity"])
def test_elements_without_edges_go_last(method):
    assert ORDERINGS[method](two_parts_and_a_loner(), CostConfig(g=2), 0)[-1] == 5


@pytest.mark.parametrize("method", ["rcm", "backbone", "spectral"])
def test_unrolls_a_shuffled_path(method):
    W, planted = path(60)
    found = ORDERINGS[method](W, CostConfig(), 0)
    assert np.array_equal(found, planted) or np.array_equal(found, planted[::-1])


@pytest.mark.parametrize("method", ["spectral", "louvain", "fine_louvain", "leiden", "bisection", "backbone"])
def test_closes_most_of_the_gap_on_planted_blocks(method):
    W, planted = planted_blocks(128, 32)
    cost = CostConfig(g=8)
    J = {name: evaluate_cost(W, pi, cost).J for name, pi in (("planted", planted), ("identity", np.arange(128)))}
    assert evaluate_cost(W, ORDERINGS[method](W, cost, 0), cost).J < J["planted"] + 0.2 * (J["identity"] - J["planted"])


@pytest.mark.parametrize(("method", "module"), [("leiden", "igraph"), ("bisection", "pymetis")])
def test_a_missing_package_is_named(method, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ResourceError, match=f"pip install {module}"):
        ORDERINGS[method](planted_blocks(20, 5)[0], CostConfig(g=4), 0)


def test_the_backbone_sees_through_noise_that_misleads_rcm():
    W, planted = band_graph(600, width=16, noise=0.2, seed=3)
    cost, W = CostConfig(), check_w(W)
    J = {name: evaluate_cost(W, ORDERINGS[name](W, cost, 0), cost).J for name in ("rcm", "backbone")}
    aim, far = evaluate_cost(W, planted, cost).J, evaluate_cost(W, np.arange(600), cost).J
    assert J["backbone"] < aim + 0.03 * (far - aim) < J["rcm"]


def test_large_graphs_get_a_multilevel_fiedler_vector_close_to_the_true_one(monkeypatch):
    W, planted = planted_graph(600, blocks=2, degree=24, noise=0.1, seed=1)
    W, side = check_w(W), np.argsort(planted) < 300
    monkeypatch.setattr(spectral, "LANCZOS_SIZE", 100)
    vector = spectral._multilevel(W, 0)
    assert max(np.mean((vector > 0) == side), np.mean((vector < 0) == side)) > 0.99


def test_a_large_graph_that_lanczos_cannot_finish_is_contracted(monkeypatch):
    W, planted = path(400)
    monkeypatch.setattr(spectral, "LANCZOS_SIZE", 100)
    monkeypatch.setattr(spectral, "RESTARTS", 1)
    place = np.argsort(np.argsort(spectral.fiedler_vector(W, 0)))
    assert abs(np.corrcoef(place, np.argsort(planted))[0, 1]) > 0.95


def test_louvain_finds_planted_communities_and_never_splits_components():
    W, planted = planted_graph(400, blocks=8, degree=24, noise=0.05, seed=2)
    label = louvain_communities(check_w(W), 1.0)[planted].reshape(8, 50)
    assert (label == label[:, :1]).all() and len(set(label[:, 0])) == 8
    apart = louvain_communities(two_parts_and_a_loner(), 1.0)
    assert len({apart[1], apart[2], apart[0], apart[5]}) == 4


def test_contraction_keeps_the_weight_between_groups():
    W = random_graph(30)
    label = np.arange(30) % 4
    indptr, indices, data = graph_kernels.contract(W.indptr, W.indices, W.data, label, 4)
    dense = np.zeros((4, 4))
    dense[np.repeat(np.arange(4), np.diff(indptr)), indices] = data
    member = np.equal.outer(np.arange(4), label).astype(float)
    expected = member @ W.toarray() @ member.T
    np.testing.assert_allclose(dense, expected - np.diag(np.diag(expected)), rtol=1e-12)


def test_shared_neighbours_against_sets():
    W = random_graph(25, density=0.5)
    witness = np.arange(25) % 2 == 0
    share = graph_kernels.shared_neighbours(W.indptr, W.indices, witness)
    near = [set(W.indices[W.indptr[i] : W.indptr[i + 1]]) & set(np.flatnonzero(witness)) for i in range(25)]
    rows = np.repeat(np.arange(25), np.diff(W.indptr))
    expected = [
        len(near[i] & near[j]) / max(min(len(near[i]), len(near[j])), 1) for i, j in zip(rows, W.indices, strict=True)
    ]
    np.testing.assert_allclose(share, expected, rtol=1e-6)
