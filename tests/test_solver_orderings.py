"""Every ordering on every odd graph is a permutation; each finds what it is good at."""

import builtins

import numpy as np
import pytest
from solver_instances import ODD_GRAPHS, path, planted_blocks, two_parts_and_a_loner

from icd_lib.axes.permutation import check_permutation
from icd_lib.errors import ResourceError
from icd_lib.graph import check_w
from icd_lib.solver import ORDERINGS, CostConfig, evaluate_cost


@pytest.mark.parametrize("method", ORDERINGS)
@pytest.mark.parametrize("kind", ODD_GRAPHS)
def test_gives_the_same_permutation_twice(method, kind):
    W = check_w(ODD_GRAPHS[kind])
    first, second = (ORDERINGS[method](W, CostConfig(g=4), 0) for _ in range(2))
    assert first.dtype == np.int64
    np.testing.assert_array_equal(check_permutation(first, W.shape[0]), second)


@pytest.mark.parametrize("method", [m for m in ORDERINGS if m != "identity"])
def test_elements_without_edges_go_last(method):
    assert ORDERINGS[method](two_parts_and_a_loner(), CostConfig(g=2), 0)[-1] == 5


@pytest.mark.parametrize("method", ["rcm", "spectral"])
def test_unrolls_a_shuffled_path(method):
    W, planted = path(60)
    found = ORDERINGS[method](W, CostConfig(), 0)
    assert np.array_equal(found, planted) or np.array_equal(found, planted[::-1])


@pytest.mark.parametrize("method", ["spectral", "communities", "bisection"])
def test_closes_most_of_the_gap_on_planted_blocks(method):
    W, planted = planted_blocks(128, 32)
    cost = CostConfig(g=8)
    J = {name: evaluate_cost(W, pi, cost).J for name, pi in (("planted", planted), ("identity", np.arange(128)))}
    assert evaluate_cost(W, ORDERINGS[method](W, cost, 0), cost).J < J["planted"] + 0.2 * (J["identity"] - J["planted"])


@pytest.mark.parametrize(("method", "module"), [("communities", "igraph"), ("bisection", "pymetis")])
def test_a_missing_package_is_named(method, module, monkeypatch):
    real_import = builtins.__import__

    def no_module(name, *args, **kwargs):
        if name == module:
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_module)
    with pytest.raises(ResourceError, match=f"pip install {module}"):
        ORDERINGS[method](planted_blocks(20, 5)[0], CostConfig(g=4), 0)
