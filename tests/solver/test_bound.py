"""The lower bound never exceeds what brute force or the solver reaches, and is exact where everything is tried."""

from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp
from solver_instances import ODD_GRAPHS, planted_blocks, random_graph

from icd_lib.errors import SolverNotConverged
from icd_lib.solver import CostConfig, bound, evaluate_cost, fit_permutation, lower_bound
from icd_lib.solver.cost import score_positions

COSTS = [CostConfig(g=2, k=2, v=3, lam=1), CostConfig(g=1, k=3, v=2, mu=2.0, beta=0.7), CostConfig(g=3, alpha=3.0, k=1)]


def optimum(W, cost):
    return min(score_positions(W, np.array(pos), cost).J for pos in permutations(range(W.shape[0])))


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("D", [4, 6, 7])
def test_never_exceeds_the_optimum(D, seed, cost, monkeypatch):
    W, best = random_graph(D, seed, density=0.3 + 0.2 * seed), optimum(random_graph(D, seed, 0.3 + 0.2 * seed), cost)
    exact, how = lower_bound(W, cost)
    assert how == "exhaustive" and exact == pytest.approx(best, abs=1e-12)
    monkeypatch.setattr(bound, "EXHAUSTIVE_SIZE", 0)
    tight, how = lower_bound(W, cost)
    assert how == "assignment" and tight <= best
    monkeypatch.setattr(bound, "ASSIGNMENT_SIZE", 0)
    loose, how = lower_bound(W, cost)
    assert how == "elements" and loose <= tight + 1e-12


def test_is_exact_where_the_relaxation_is():
    """A star: the hub's neighbours cannot lie nearer than the nearest positions."""
    W = np.zeros((12, 12))
    W[0, 1:] = W[1:, 0] = 1.0
    cost = CostConfig(g=1, k=1, beta=0.0, mu=0.0, lam=20)
    best = evaluate_cost(sp.csr_array(W), np.array([1, 2, 3, 4, 5, 0, 6, 7, 8, 9, 10, 11]), cost).J
    assert 0.5 * best < lower_bound(sp.csr_array(W), cost)[0] <= best


def test_lies_below_the_solver_and_above_nothing_trivial():
    W, planted = planted_blocks(128, 32)
    cost = CostConfig(g=8)
    found, _ = lower_bound(W, cost)
    _, stats = fit_permutation(W, cost, refine_steps=200)
    assert -cost.mu < found <= stats["after"]["J"] <= evaluate_cost(W, planted, cost).J


@pytest.mark.parametrize("kind", ODD_GRAPHS)
def test_odd_graphs(kind):
    W = ODD_GRAPHS[kind]
    _, stats = fit_permutation(W, CostConfig(g=4), refine_steps=20)
    assert lower_bound(W, CostConfig(g=4))[0] <= stats["after"]["J"] + 1e-12  # optima may tie in all but the last bit


def test_scaling_changes_nothing():
    W = random_graph(30)
    assert lower_bound(W * 8.0) == lower_bound(W)


def test_refuses_bad_graphs():
    with pytest.raises(SolverNotConverged, match="is not finite"):
        lower_bound(sp.csr_array(np.array([[0, np.nan], [np.nan, 0]])))
