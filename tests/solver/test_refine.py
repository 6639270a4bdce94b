"""The compiled moves: every price equals the difference of two exact evaluations."""

import numpy as np
import pytest
import scipy.sparse as sp
from solver_instances import random_graph

from icd_lib.solver import CostConfig, evaluate_cost, field_kernels, kernels, line_kernels
from icd_lib.solver.clock import Clock
from icd_lib.solver.lines import Lines, mean_price
from icd_lib.solver.problem import build_layout, build_problem
from icd_lib.solver.refine import Refiner
from icd_lib.solver.windows import Annealer, window_bounds

COST = CostConfig(g=4, v=5, h=3, k=3, gamma_s=0.7, mu=0.9)
FOREVER = Clock(float("inf"))


def make_problem(D=37, seed=0, cost=COST):
    rng = np.random.default_rng(seed)
    W, pi, prev = random_graph(D, seed), rng.permutation(D), rng.permutation(D)
    problem = build_problem(W, cost, prev)
    return W, pi, prev, problem, build_layout(problem, pi)


def test_swap_price_is_the_change_of_J_for_every_pair():
    W, pi, prev, problem, layout = make_problem()
    J = evaluate_cost(W, pi, COST, prev).J
    for a in range(37):
        for b in range(a + 1, 37):
            price = kernels.swap_delta(problem, layout, a, b)
            kernels.apply_swap(problem, layout, a, b)
            assert price == pytest.approx(evaluate_cost(W, layout.perm, COST, prev).J - J, abs=1e-13)
            kernels.apply_swap(problem, layout, a, b)
    np.testing.assert_array_equal(layout.perm, pi)


def test_descent_never_raises_J_and_keeps_its_books():
    W, pi, prev, problem, layout = make_problem(seed=5)
    state, J = np.array([0], dtype=np.uint64), evaluate_cost(W, pi, COST, prev).J
    for _ in range(10):
        kernels.descend_swaps(problem, layout, state, 8, 0, 37, 4, 0.0)
        now = evaluate_cost(W, layout.perm, COST, prev).J
        assert now <= J + 1e-14
        J = now
    assert J < evaluate_cost(W, pi, COST, prev).J
    fresh = build_layout(problem, layout.perm)
    np.testing.assert_array_equal(layout.pos, fresh.pos)
    np.testing.assert_allclose(layout.block_degree, fresh.block_degree, rtol=1e-12)


def test_mean_price_is_the_mean_over_pairs_of_positions():
    price = np.concatenate([[0.0], np.random.default_rng(0).random(19)])
    rows, cols = np.array([[0, 3], [3, 9]]), np.array([[0, 1], [1, 9], [9, 20]])
    apart = price[np.abs(np.subtract.outer(np.arange(20), np.arange(20)))]
    expected = [[apart[a:b, c:d].mean() for c, d in cols] for a, b in rows]
    np.testing.assert_allclose(mean_price(price, rows, cols), expected, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 4])
def test_line_moves_cost_what_they_change(length):
    """With lines of one element the quotient is the graph, so its price is J itself but for alignment."""
    cost = CostConfig(g=4, beta=0.0, h=3, k=3, gamma_s=0.7, mu=0.9)
    W, pi, prev, problem, _ = make_problem(D=36, cost=cost)
    lines = Lines(problem, pi, cost, length)
    scene = (lines.share, lines.degree, lines.held, lines.spread)

    def price():
        parts = (lines.X * lines.P).sum() / 2 + lines.spread * (lines.held**2).sum()
        return (parts + lines.S[lines.order, np.arange(lines.count)].sum()) / lines.unit

    def J():
        return evaluate_cost(W, lines.layout(), cost, prev).J

    rng = np.random.default_rng(1)
    start, first = price(), J()
    for _ in range(20):
        p, q = rng.choice(lines.count, 2, replace=False)
        change = line_kernels.trade_edges(lines.X, lines.P, p, q) + line_kernels.trade_spread(*scene, p, q)
        change += line_kernels.trade_stability(lines.S, lines.order, p, q)
        before = price()
        shift = lines.degree[q] - lines.degree[p]
        lines.held += (lines.share[p] - lines.share[q]) * shift
        line_kernels.trade_lines(lines.X, lines.order, lines.degree, p, q)
        assert change / lines.unit == pytest.approx(price() - before, abs=1e-12)
        if length == 1:
            assert price() - start == pytest.approx(J() - first, abs=1e-5)


def test_moving_a_run_costs_what_it_changes():
    cost = CostConfig(g=4, beta=0.0, k=3)
    problem = make_problem(D=36, cost=cost)[3]
    lines = Lines(problem, np.arange(36), cost, 3)
    source, still = np.array([5, 6, 3, 4]), np.arange(3, 7)
    before = (lines.X * lines.P).sum() / 2
    change = [line_kernels.span_edges(lines.X, lines.P, 3, s) for s in (source, still)]
    line_kernels.shuffle_span(lines.X, lines.order, lines.degree, 3, source)
    assert lines.order.tolist() == [0, 1, 2, 5, 6, 3, 4, 7, 8, 9, 10, 11]
    assert change[0] - change[1] == (lines.X * lines.P).sum() / 2 - before


def test_annealing_lines_gathers_shuffled_whole_tiles():
    D, g = 256, 4
    same = np.equal.outer(np.arange(D) // 64, np.arange(D) // 64)
    shuffled = np.random.default_rng(0).permutation(D // g)
    order = (shuffled[:, None] * g + np.arange(g)).ravel()
    W, cost = sp.csr_array((same & ~np.eye(D, dtype=bool)).astype(float)), CostConfig(g=g)
    moved = Refiner(W, cost, FOREVER).move_lines(order, 0)
    planted, start = evaluate_cost(W, np.arange(D), cost).J, evaluate_cost(W, order, cost).J
    assert evaluate_cost(W, moved, cost).J < planted + 0.05 * (start - planted)


def test_fields_of_a_small_window_are_the_exact_price():
    """Where every position is a column, the fields give the price of every swap: descent ends in a local optimum."""
    W, pi, prev, problem, layout = make_problem()
    annealer = Annealer(problem, COST)
    annealer.run(layout, np.array([3], dtype=np.uint64), 60_000, 0.0, FOREVER)
    J = evaluate_cost(W, layout.perm, COST, prev).J
    assert J < evaluate_cost(W, pi, COST, prev).J
    prices = [kernels.swap_delta(problem, layout, a, b) for a in range(37) for b in range(a)]
    assert min(prices) > -1e-7


@pytest.mark.parametrize("D", [37, 300])
def test_a_hot_search_keeps_its_books(D):
    W, pi, prev, problem, layout = make_problem(D)
    spent = Annealer(problem, COST).run(layout, np.array([3], dtype=np.uint64), 20_000, 1.0, FOREVER)
    assert spent.trades > 100
    fresh = build_layout(problem, layout.perm)
    np.testing.assert_array_equal(layout.pos, fresh.pos)
    np.testing.assert_allclose(layout.block_degree, fresh.block_degree, rtol=1e-10)


def test_updated_fields_equal_fresh_ones():
    problem, layout = make_problem()[3:]
    rng = np.random.default_rng(0)
    price = rng.random((37, 37)).astype(np.float32)
    fields = np.empty((37, 37), np.float32), np.empty((37, 5), np.float32)
    edges = problem.indptr[-1]
    window = np.empty(38, np.int64), np.empty(edges, np.int32), np.empty(edges, np.float32)
    scene = (np.arange(37, dtype=np.int32), 0, np.arange(37, dtype=np.int32), price)
    field_kernels.fill_fields(problem, layout.pos, *scene, *fields, np.empty(37, np.int32), window)
    old, new = 4, 30
    a = layout.perm[old]
    step = price[new] - price[old]
    field_kernels.update_fields(window, *fields, step, True, a, old % 5, new % 5, np.float32(1))
    moved = layout.pos.copy()
    moved[a] = new
    fresh = np.empty_like(fields[0]), np.empty_like(fields[1])
    field_kernels.fill_fields(problem, moved, *scene, *fresh, np.empty(37, np.int32), window)
    for ours, theirs in zip(fields, fresh, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_windows_cover_every_position_once():
    for D in (1, 100, 3072, 3073, 20_000):
        for shift in (False, True):
            bounds = window_bounds(D, shift)
            assert bounds[0][0] == 0 and bounds[-1][1] == D
            assert all(a[1] == b[0] for a, b in zip(bounds, bounds[1:], strict=False))


def test_all_layouts_of_a_handful_are_compared():
    W, pi, prev, problem, layout = make_problem(D=6)
    rng = np.random.default_rng(0)
    best = Refiner(W, COST, FOREVER, prev).best_of_all()
    least = evaluate_cost(W, best, COST, prev).J
    assert all(evaluate_cost(W, rng.permutation(6), COST, prev).J >= least - 1e-12 for _ in range(2000))


def test_the_generator_is_uniform_and_the_same_everywhere():
    state = np.array([1], dtype=np.uint64)
    draws = np.array([kernels.next_uniform(state) for _ in range(4000)])
    assert 0 < draws.min() and draws.max() < 1 and abs(draws.mean() - 0.5) < 0.02
    first = (6364136223846793005 + 1442695040888963407) % 2**64
    assert draws[0] == ((first >> 11) + 0.5) * 2.0**-53


def test_seed_decides_the_path():
    W, pi = random_graph(40), np.arange(40)
    refiner = Refiner(W, COST, FOREVER)
    a, b, c = (refiner.anneal(pi, s, 4000, 0.5).pi for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_spent_clock_stops_every_step_at_once():
    refiner, pi = Refiner(random_graph(40), COST, Clock(0.0, started=0.0)), np.arange(40)
    np.testing.assert_array_equal(refiner.move_lines(pi, 0), pi)
    for refined in (refiner.anneal(pi, 0, 4000, 0.5), refiner.polish(pi, 0)):
        assert refined.proposals == 0
        np.testing.assert_array_equal(refined.pi, pi)
