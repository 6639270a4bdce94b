"""Pilot layouts: valid, repeatable, and moving C, Q and R_align apart from each other."""

import numpy as np
import pytest

from icd_lib.codesign.pilots import blend, deal, pilot_layouts, shuffle_share
from icd_lib.errors import AxisError, ConfigError
from icd_lib.graph.mock import planted_graph
from icd_lib.solver.cost import CostConfig, evaluate_cost

D = 512
COST = CostConfig(g=4, v=8, h=D)
W, PLANTED = planted_graph(D, blocks=16, degree=16, noise=0.05, seed=1)


@pytest.fixture(scope="module")
def pilots():
    return pilot_layouts(W, COST, 26, 0, {"search": PLANTED})


def changes(pilots, kind: str) -> list[tuple[float, float, float]]:
    """Change of (C, Q, R_align) against the search for the pilots of one kind, least mixed first."""
    start = evaluate_cost(W, pilots["search"], COST)
    reports = [evaluate_cost(W, pi, COST) for name, pi in pilots.items() if name.startswith(kind)]
    return [(r.C - start.C, r.Q - start.Q, r.R_align - start.R_align) for r in reports]


def test_pilots_are_distinct_permutations(pilots):
    assert len(pilots) == 26
    assert next(iter(pilots)) == "identity"
    for pi in pilots.values():
        assert np.array_equal(np.sort(pi), np.arange(D))
    assert len({pi.tobytes() for pi in pilots.values()}) == 26


def test_the_same_seed_gives_the_same_pilots():
    first, second, other = (pilot_layouts(W, COST, 12, seed) for seed in (3, 3, 4))
    assert list(first) == list(second)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    assert {"spectral", "bisection", "search"} <= set(first)


def test_each_mixture_moves_its_own_term(pilots):
    assert all(c > 0.02 and q < -0.02 for c, q, _ in changes(pilots, "elements"))
    for c, q, _ in changes(pilots, "within"):
        assert c > 0.005 and q == pytest.approx(0, abs=1e-12)
    for c, q, _ in changes(pilots, "rolled"):
        assert q < -0.05 and abs(c) < 0.03
    assert all(r < -0.05 and c > 0 for c, _, r in changes(pilots, "dealt"))
    mixed = [c for c, _, _ in changes(pilots, "elements")]
    assert len(mixed) >= 3 and mixed == sorted(mixed)


def test_no_pilot_repeats_another_where_tiles_blocks_or_lanes_are_of_one():
    for single in ({"v": 1}, {"k": 1}, {"g": 1}, {"g": 1, "k": 1, "v": 1}):
        cost = CostConfig(**{"g": 4, "k": 4, "v": 8, "h": D} | single)
        pilots = pilot_layouts(W, cost, 16, 0, {"search": PLANTED})
        assert len({pi.tobytes() for pi in pilots.values()}) == len(pilots) == 16


def test_shuffled_tiles_keep_their_members():
    mixed = shuffle_share(PLANTED, 0.9, 4, np.random.default_rng(0))
    before, after = ({frozenset(tile) for tile in pi.reshape(-1, 4).tolist()} for pi in (PLANTED, mixed))
    assert before == after
    assert not np.array_equal(mixed, PLANTED)


def test_a_short_last_tile_stays():
    mixed = shuffle_share(np.arange(10), 1.0, 4, np.random.default_rng(0))
    assert mixed[8:].tolist() == [8, 9]


def test_blends_reach_from_one_layout_to_the_other():
    other = np.random.default_rng(0).permutation(D)
    assert np.array_equal(blend(PLANTED, other, 0.0), PLANTED)
    assert np.array_equal(blend(PLANTED, other, 1.0), other)


def test_dealt_neighbours_share_a_residue():
    positions = np.argsort(deal(np.arange(24), 4))
    assert (np.diff(positions)[:5] == 4).all()
    assert np.array_equal(np.sort(deal(np.arange(23), 4)), np.arange(23))


def test_given_layouts_are_used_and_checked():
    assert pilot_layouts(W, COST, 9, 0, {"search": PLANTED, "mine": np.arange(D)[::-1].copy()})["mine"][0] == D - 1
    with pytest.raises(AxisError, match="pilot 'mine'"):
        pilot_layouts(W, COST, 9, 0, {"mine": np.zeros(D, dtype=int)})


@pytest.mark.parametrize("count", [7, 8.0, True])
def test_too_few_pilots_are_refused(count):
    with pytest.raises(ConfigError, match="pilots"):
        pilot_layouts(W, COST, count, 0)


def test_tiny_and_empty_graphs_have_pilots():
    empty = planted_graph(1, blocks=1, degree=1, noise=0.0)[0]
    assert all(pi.tolist() == [0] for pi in pilot_layouts(empty, CostConfig(g=4), 8, 0).values())
