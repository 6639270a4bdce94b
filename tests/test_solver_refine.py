"""The compiled moves: every price equals the difference of two exact evaluations."""

import numpy as np
import pytest
import scipy.sparse as sp
from solver_instances import random_graph

from icd_lib.solver import CostConfig, evaluate_cost, kernels
from icd_lib.solver.refine import build_problem, refine_layout

COST = CostConfig(g=4, v=5, h=3, k=3, gamma_s=0.7, mu=0.9)


def make_problem(D=37, seed=0):
    rng = np.random.default_rng(seed)
    W, pi, prev = random_graph(D, seed), rng.permutation(D), rng.permutation(D)
    return W, pi, prev, *build_problem(W, pi, COST, prev)


def test_swap_price_is_the_change_of_J_for_every_pair():
    W, pi, prev, problem, layout = make_problem()
    J = evaluate_cost(W, pi, COST, prev).J
    for a in range(37):
        for b in range(a + 1, 37):
            price = kernels.swap_delta(problem, layout, a, b)
            kernels.apply_swap(problem, layout, a, b)
            assert price == pytest.approx(evaluate_cost(W, layout[1], COST, prev).J - J, abs=1e-13)
            kernels.apply_swap(problem, layout, a, b)
    np.testing.assert_array_equal(layout[1], pi)


def test_tile_price_is_the_change_of_J_for_every_pair_of_tiles():
    W, pi, prev, problem, layout = make_problem()
    J = evaluate_cost(W, pi, COST, prev).J
    for s in range(9):
        for t in range(s + 1, 9):
            before = kernels.tiles_cost(problem, layout, 4, s, t)
            kernels.swap_tiles(problem, layout, 4, s, t)
            price = kernels.tiles_cost(problem, layout, 4, s, t) - before
            assert price == pytest.approx(evaluate_cost(W, layout[1], COST, prev).J - J, abs=1e-13)
            kernels.swap_tiles(problem, layout, 4, s, t)
    np.testing.assert_array_equal(layout[1], pi)


def test_state_stays_consistent_through_a_search():
    W, pi, prev, problem, layout = make_problem()
    state = np.array([3], dtype=np.uint64)
    assert kernels.search_swaps(problem, layout, state, 8, 0, 2000, 2000, 0.01, 1e-4, 0.0) > 50
    pos, perm, block_degree = layout
    np.testing.assert_array_equal(perm[pos], np.arange(37))
    fresh = build_problem(W, perm.astype(np.int64), COST, prev)[1][2]
    np.testing.assert_allclose(block_degree, fresh, rtol=1e-12)


def test_descent_never_raises_J():
    W, pi, prev, problem, layout = make_problem(seed=5)
    state, J = np.array([0], dtype=np.uint64), evaluate_cost(W, pi, COST, prev).J
    for _ in range(20):
        kernels.search_swaps(problem, layout, state, 8, 0, 50, 50, 0.0, 0.0, 0.0)
        now = evaluate_cost(W, layout[1], COST, prev).J
        assert now <= J + 1e-14
        J = now
    assert J < evaluate_cost(W, pi, COST, prev).J


def test_tile_descent_gathers_shuffled_whole_tiles():
    D, g = 64, 4
    same = np.equal.outer(np.arange(D) // 16, np.arange(D) // 16)
    shuffled = np.random.default_rng(0).permutation(D // g)
    order = (shuffled[:, None] * g + np.arange(g)).ravel()
    W, cost = sp.csr_array((same & ~np.eye(D, dtype=bool)).astype(float)), CostConfig(g=g)
    problem, layout = build_problem(W, order, cost)
    kernels.descend_tiles(problem, layout, g, 0, D // g, 1e-13)
    planted, start = evaluate_cost(W, np.arange(D), cost).J, evaluate_cost(W, order, cost).J
    assert evaluate_cost(W, layout[1], cost).J < planted + 0.1 * (start - planted)


def test_the_generator_is_uniform_and_the_same_everywhere():
    state = np.array([1], dtype=np.uint64)
    draws = np.array([kernels.next_uniform(state) for _ in range(4000)])
    assert 0 < draws.min() and draws.max() < 1 and abs(draws.mean() - 0.5) < 0.02
    first = (6364136223846793005 + 1442695040888963407) % 2**64
    assert draws[0] == ((first >> 11) + 0.5) * 2.0**-53


def test_seed_decides_the_path():
    W, pi = random_graph(40), np.arange(40)
    a, b, c = (refine_layout(W, pi, COST, steps=20, seed=s).pi for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_deadline_in_the_past_stops_at_once():
    result = refine_layout(random_graph(40), np.arange(40), COST, steps=20, seed=0, deadline=0.0)
    assert result.timed_out and result.steps == 0
    np.testing.assert_array_equal(result.pi, np.arange(40))
