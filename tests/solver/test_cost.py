"""J against a ten-line reference, its invariants, and refusals."""

import numpy as np
import pytest
import scipy.sparse as sp
from solver_instances import random_graph

from icd_lib.errors import AxisError, ConfigError, SolverNotConverged
from icd_lib.solver import CostConfig, evaluate_cost
from icd_lib.solver.cost import block_of_position, distance_penalty


def reference_cost(W, pi, c, pi_prev=None):
    """Design §4, word for word, with loops."""
    W, D, pos = W.toarray(), len(pi), np.argsort(pi)
    phi = lambda d: d if d <= c.lam else c.lam + c.tau * (d - c.lam)  # noqa: E731
    pairs = [(i, j) for i in range(D) for j in range(i + 1, D)]
    total, k = sum(W[i, j] for i, j in pairs), W.sum(1)
    C = sum(W[i, j] * phi(abs(pos[i] - pos[j]) // c.g) for i, j in pairs) / (phi((D - 1) // c.g) * total)
    same = [(i, j) for i in range(D) for j in range(D) if pos[i] * c.k // D == pos[j] * c.k // D]
    Q = sum(W[i, j] - c.gamma * k[i] * k[j] / W.sum() for i, j in same) / W.sum()
    R_align = sum(W[i, j] for i, j in pairs if pos[i] % c.v != pos[j] % c.v) / total
    R_stab = 0 if pi_prev is None else np.mean(np.abs(pos - np.argsort(pi_prev)) > c.h)
    return C, Q, R_align, R_stab, c.alpha * C + c.beta * R_align + c.gamma_s * R_stab - c.mu * Q


@pytest.mark.parametrize("D", [5, 23, 40])
@pytest.mark.parametrize(
    "cost", [CostConfig(g=3, v=4, h=5, lam=2), CostConfig(g=1, k=7, tau=0.5, mu=2, gamma=0.7, h=0)]
)
def test_equals_the_reference(D, cost):
    rng = np.random.default_rng(D)
    pi, prev = rng.permutation(D), rng.permutation(D)
    for pi_prev in (None, prev):
        report = evaluate_cost(random_graph(D), pi, cost, pi_prev)
        got = (report.C, report.Q, report.R_align, report.R_stab, report.J)
        np.testing.assert_allclose(got, reference_cost(random_graph(D), pi, cost, pi_prev), rtol=1e-12, atol=1e-14)


def test_known_value_of_two_cliques():
    block = np.ones((4, 4)) - np.eye(4)
    W = sp.csr_array(np.kron(np.eye(2), block))
    report = evaluate_cost(W, np.arange(8), CostConfig(g=4, k=2, v=4, gamma=1.0))
    assert report.C == 0 and report.Q == pytest.approx(0.5) and report.R_align == 1.0 and report.R_stab == 0
    assert report.J == pytest.approx(0.2 - 0.25)


def test_stronger_blocks_lower_C_and_raise_Q():
    D, cost = 64, CostConfig(g=4)
    same = np.equal.outer(np.arange(D) // 16, np.arange(D) // 16)
    reports = []
    for strength in (1, 2, 5, 50):
        W = np.where(same, strength, 1.0) * (1 - np.eye(D))
        reports.append(evaluate_cost(sp.csr_array(W), np.arange(D), cost))
    assert all(b.C < a.C and b.Q > a.Q for a, b in zip(reports, reports[1:], strict=False))


def test_scale_of_W_and_reversal_change_nothing():
    W, pi, cost = random_graph(40), np.random.default_rng(1).permutation(40), CostConfig(g=4, v=8)
    report = evaluate_cost(W, pi, cost)
    assert evaluate_cost(W * 4.0, pi, cost) == report
    assert evaluate_cost(W * 3.7, pi, cost).J == pytest.approx(report.J, rel=1e-12)
    assert evaluate_cost(W, pi[::-1], cost).J == pytest.approx(report.J, rel=1e-12)


def test_relabelling_elements_changes_nothing():
    W, rng, cost = random_graph(30), np.random.default_rng(2), CostConfig(g=4, v=8)
    relabel, pi = rng.permutation(30), rng.permutation(30)
    relabelled = W[relabel][:, relabel]
    assert evaluate_cost(relabelled, pi, cost).J == pytest.approx(evaluate_cost(W, relabel[pi], cost).J, rel=1e-12)


def test_larger_tiles_never_lengthen_a_distance():
    W, pi = random_graph(48), np.random.default_rng(3).permutation(48)
    costs = [CostConfig(g=g) for g in (1, 2, 3, 4, 8, 16, 47)]
    raw = [evaluate_cost(W, pi, c).C * float(distance_penalty(47 // c.g, c)) for c in costs]
    assert all(b <= a + 1e-12 for a, b in zip(raw, raw[1:], strict=False))
    assert evaluate_cost(W, pi, CostConfig(g=48)).C == 0


def test_stability_counts_elements_moved_more_than_h():
    W, cost = random_graph(10), CostConfig(h=2)
    rolled = np.roll(np.arange(10), 3)  # 7 elements move by 3, 3 elements by 7
    swapped = np.array([2, 1, 0, *range(3, 10)])  # nobody moves more than 2
    assert evaluate_cost(W, rolled, cost, np.arange(10)).R_stab == 1.0
    assert evaluate_cost(W, swapped, cost, np.arange(10)).R_stab == 0.0


@pytest.mark.parametrize("D", [1, 6])
def test_no_edges_cost_nothing(D):
    report = evaluate_cost(sp.csr_array((D, D)), np.arange(D))
    assert (report.C, report.Q, report.R_align, report.J) == (0, 0, 0, 0)


def test_blocks_are_contiguous_and_even():
    for D, k in ((10, 4), (3, 5), (1, 4), (64, 4)):
        block = block_of_position(D, k)
        sizes = np.bincount(block, minlength=k)
        assert (np.diff(block) >= 0).all() and block[-1] < k and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("g", 0), ("g", 1.5), ("k", 0), ("v", 0), ("alpha", np.nan), ("mu", -1), ("h", -1), ("g", "16")],
)
def test_refuses_settings(field, value):
    with pytest.raises(ConfigError, match=f"cost.{field} is"):
        CostConfig(**{field: value})


def test_refuses_bad_graphs_and_permutations():
    with pytest.raises(SolverNotConverged, match=r"W\[0, 1\] = nan"):
        evaluate_cost(sp.csr_array(np.array([[0, np.nan], [np.nan, 0]])), np.arange(2))
    with pytest.raises(AxisError, match="5 elements but the permutation has 4"):
        evaluate_cost(random_graph(5), np.arange(4))
    with pytest.raises(AxisError, match="more than once"):
        evaluate_cost(random_graph(3), np.array([0, 0, 1]))
    with pytest.raises(AxisError, match="pi_prev"):
        evaluate_cost(random_graph(3), np.arange(3), pi_prev=np.arange(2))
