"""fit_permutation: optimal where the optimum is known, never worse than what it was given, deterministic."""

import os
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp
from solver_instances import ODD_GRAPHS, planted_blocks, random_graph

from icd_lib.errors import AxisError, ConfigError, SolverNotConverged, SolverTimeout
from icd_lib.graph import check_w
from icd_lib.graph.mock import band_graph, planted_graph
from icd_lib.solver import (
    ORDERINGS,
    CostConfig,
    clock,
    evaluate_cost,
    fit_or_stop,
    fit_permutation,
    portfolio,
    search,
    windows,
)
from icd_lib.solver.cost import score_positions


def brute_force(W, cost):
    D = W.shape[0]
    return min(score_positions(W, np.array(pos), cost).J for pos in permutations(range(D)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("D", [3, 6, 7])
def test_finds_the_optimum_of_small_graphs(D, seed):
    W, cost = random_graph(D, seed, density=0.7), CostConfig(g=2, k=2, v=3, lam=1)
    pi, stats = fit_permutation(W, cost, refine_steps=200)
    assert evaluate_cost(W, pi, cost).J == pytest.approx(brute_force(W, cost), abs=1e-12)
    assert stats["after"]["J"] == evaluate_cost(W, pi, cost).J


def test_finds_the_optimum_at_eight():
    W, cost = random_graph(8, 11, density=0.6), CostConfig(g=2, k=2, v=4, lam=1)
    pi, _ = fit_permutation(W, cost, refine_steps=200)
    assert evaluate_cost(W, pi, cost).J == pytest.approx(brute_force(W, cost), abs=1e-12)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_recovers_shuffled_planted_blocks(noise):
    W, planted = planted_blocks(256, 64, seed=1, noise=noise)
    cost = CostConfig()
    pi, stats = fit_permutation(W, cost)
    J_planted = evaluate_cost(W, planted, cost).J
    assert stats["before"]["J"] > J_planted + 0.3, "the instance must be shuffled"
    assert evaluate_cost(W, pi, cost).J <= J_planted
    assert stats["after"]["C"] < stats["before"]["C"] and stats["after"]["Q"] > stats["before"]["Q"]


def test_same_seed_same_layout_and_scaling_W_keeps_it():
    W = planted_blocks(96, 24)[0]
    first, second, scaled = (fit_permutation(w, refine_steps=100, seed=3)[0] for w in (W, W, W * 8.0))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, scaled)


@pytest.mark.parametrize("kind", ODD_GRAPHS)
def test_odd_graphs_get_an_answer_no_worse_than_the_start(kind):
    W = ODD_GRAPHS[kind]
    pi, stats = fit_permutation(W, CostConfig(g=4), refine_steps=20)
    assert pi.dtype == np.int64 and sorted(pi) == list(range(W.shape[0]))
    assert stats["after"]["J"] <= stats["before"]["J"]
    assert stats["improved"] == (stats["after"]["J"] < stats["before"]["J"])
    assert not stats["timed_out"]


@pytest.mark.parametrize("kind", ["one", "empty"])
def test_without_edges_the_given_layout_is_kept(kind):
    given = np.arange(ODD_GRAPHS[kind].shape[0])[::-1]
    pi, stats = fit_permutation(ODD_GRAPHS[kind], initial=given)
    np.testing.assert_array_equal(pi, given)
    assert stats["winner"] == "initial" and not stats["improved"] and stats["iterations"] == 0
    assert not stats["timed_out"]


def test_an_optimal_start_is_returned_unchanged():
    W, cost = random_graph(7, 1, density=0.7), CostConfig(g=2, k=2, v=3, lam=1)
    best, _ = fit_permutation(W, cost, refine_steps=200)
    again, stats = fit_permutation(W, cost, refine_steps=200, initial=best)
    np.testing.assert_array_equal(again, best)
    assert not stats["improved"] and stats["winner"] == "initial"


def test_a_spent_budget_returns_the_initial_layout():
    W = planted_blocks(96, 24)[0]
    given = np.random.default_rng(0).permutation(96)
    pi, stats = fit_permutation(W, time_budget_s=0, initial=given)
    np.testing.assert_array_equal(pi, given)
    assert stats["timed_out"] and not stats["improved"] and stats["after"] == stats["before"]


class Ticks:
    """A clock whose every reading is one second later."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1.0
        return self.now


def test_a_budget_that_runs_out_on_the_way_keeps_the_best_so_far(monkeypatch):
    W = check_w(planted_graph(400, degree=16, seed=4)[0])
    _, full = fit_permutation(W, seed=2)
    ticks = Ticks()
    monkeypatch.setattr(clock, "time", ticks)
    monkeypatch.setattr(portfolio, "time", ticks)
    fit_permutation(W, seed=2, time_budget_s=1e9)
    whole_s, reached = ticks.now, []
    for budget in (0, 0.4 * whole_s, 0.6 * whole_s, 0.8 * whole_s, 2 * whole_s):
        pi, stats = fit_permutation(W, seed=2, time_budget_s=budget)
        assert stats["after"]["J"] == evaluate_cost(W, pi).J <= stats["before"]["J"]
        assert stats["improved"] == (stats["after"]["J"] < stats["before"]["J"])
        reached.append((stats["timed_out"], stats["improved"], stats["after"]["J"]))
    assert [timed_out for timed_out, _, _ in reached] == [True] * 4 + [False]
    assert not reached[0][1] and reached[1][1], "an early cut still keeps a start"
    assert all(later[2] <= earlier[2] for earlier, later in zip(reached, reached[1:], strict=False))
    assert reached[-1][2] == full["after"]["J"]


def test_nothing_found_in_time_is_tried_once_more_and_then_an_error(monkeypatch):
    W, calls = planted_blocks(96, 24)[0], []
    real = portfolio.fit_permutation

    def counted(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(portfolio, "fit_permutation", counted)
    with pytest.raises(SolverTimeout, match=r"ffn\.0 \(96 elements\).*raise solver.time_budget_s") as caught:
        fit_or_stop(W, "ffn.0", time_budget_s=0)
    assert len(calls) == 2 and caught.value.exit_code == 5
    pi, stats = fit_or_stop(W, refine_steps=20)
    assert stats["improved"] and len(calls) == 3


def test_the_curve_falls_and_ends_at_the_answer():
    _, stats = fit_permutation(planted_graph(300, degree=16)[0], refine_steps=100, guard_c=False)
    seconds, J = zip(*stats["curve"], strict=True)
    assert list(seconds) == sorted(seconds) and list(J) == sorted(J, reverse=True)
    assert J[-1] == stats["after"]["J"]


def test_refinement_does_not_buy_J_with_distance():
    cost = CostConfig(mu=2.0)  # a Q worth more than C tempts the search to tear communities apart
    W = check_w(planted_graph(512, sizes="heavy", degree=24, noise=0.3, seed=5)[0])
    _, stats = fit_permutation(W, cost, refine_steps=300)
    best = min((s for s in stats["starts"]), key=stats["starts"].get)
    start = evaluate_cost(W, ORDERINGS[best](W, cost, 0), cost)
    assert stats["after"]["J"] <= start.J and stats["after"]["C"] <= start.C + 1e-12


@pytest.mark.parametrize(("kind", "most_pct"), [("blocks", 0.0), ("bands", 1.0)])
def test_gap_to_the_planted_order(kind, most_pct):
    W, planted = planted_graph(1024, seed=6) if kind == "blocks" else band_graph(1024, noise=0.1, seed=6)
    W, cost = check_w(W), CostConfig()
    _, stats = fit_permutation(W, cost, refine_steps=400)
    aim = evaluate_cost(W, planted, cost).J
    assert 100 * (stats["after"]["J"] - aim) / (stats["before"]["J"] - aim) <= most_pct


def test_large_graphs_are_searched_in_windows(monkeypatch):
    W = check_w(planted_graph(1024, degree=16, noise=0.3, seed=7)[0])
    monkeypatch.setattr(windows, "MOST_POSITIONS", 256)
    monkeypatch.setattr(search, "MOST_POSITIONS", 256)
    monkeypatch.setattr(search, "WORTH_SHARE", 0.0)
    pi, stats = fit_permutation(W, refine_steps=100)
    np.testing.assert_array_equal(pi, fit_permutation(W, refine_steps=100)[0])
    assert sorted(pi) == list(range(1024)) and stats["after"]["J"] < min(stats["starts"].values())


def test_threads_do_not_change_the_layout():
    code = (
        "from icd_lib.graph.mock import planted_graph; from icd_lib.solver import fit_permutation; "
        "from icd_lib.axes.permutation import hash_permutation as h; "
        "print(h(fit_permutation(planted_graph(700, degree=24, noise=0.3)[0], refine_steps=100)[0]))"
    )
    hashes = set()
    for threads in ("1", "2"):
        many = {name: threads for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | many, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1


@pytest.mark.parametrize("method", ORDERINGS)
def test_a_named_method_is_the_only_start(method):
    _, stats = fit_permutation(planted_blocks(96, 24)[0], refine_steps=10, method=method)
    assert set(stats["starts"]) == {"initial", method} and not stats["skipped"] and stats["iterations"] == 10


def test_stability_holds_a_layout_back():
    W, previous = planted_blocks(96, 24)[0], np.random.default_rng(4).permutation(96)
    free, held = CostConfig(h=0), CostConfig(h=0, gamma_s=1e3)
    moved, _ = fit_permutation(W, free, initial=previous, refine_steps=50)
    kept, stats = fit_permutation(W, held, initial=previous, pi_prev=previous, refine_steps=50)
    assert np.mean(moved != previous) > 0.5
    np.testing.assert_array_equal(kept, previous)
    assert stats["after"]["R_stab"] == 0


def test_a_fall_of_J_that_raises_C_is_flagged():
    W = sp.csr_array(np.diag(np.ones(31), 1) + np.diag(np.ones(31), -1))
    cost = CostConfig(g=2, v=8, beta=50.0, mu=0.0)  # alignment is worth spreading the path out
    _, stats = fit_permutation(W, cost, refine_steps=50)
    assert stats["after"]["C"] > stats["before"]["C"] and stats["after"]["J"] < stats["before"]["J"]
    assert stats["flagged"] is True
    _, calm = fit_permutation(planted_blocks(96, 24)[0], refine_steps=50)
    assert calm["flagged"] is False


def test_refusals():
    W = random_graph(6)
    for bad in (np.nan, np.inf):
        broken = W.copy()
        broken.data[0] = bad
        with pytest.raises(SolverNotConverged, match="is not finite"):
            fit_permutation(broken)
    with pytest.raises(AxisError, match="initial"):
        fit_permutation(W, initial=np.arange(5))
    with pytest.raises(ConfigError, match="did you mean 'spectral'"):
        fit_permutation(W, method="spectrl")
    for setting in ({"time_budget_s": -1}, {"time_budget_s": np.nan}, {"refine_steps": 1.5}, {"seed": -1}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            fit_permutation(W, **setting)
