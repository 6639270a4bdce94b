"""Planted graphs and streams: the planted structure is there, hidden by the labels, and the same for the same seed."""

import numpy as np
import pytest

from icd_lib.errors import ConfigError
from icd_lib.graph import band_graph, check_w, hash_graph, planted_events, planted_graph
from icd_lib.solver import CostConfig, evaluate_cost


def block_of(D, blocks, order, lengths=None):
    label = np.empty(D, int)
    label[order] = np.arange(D) * blocks // D if lengths is None else np.repeat(np.arange(blocks), lengths)
    return label


def zipf_lengths(D, blocks):
    share = 1 / np.arange(1, blocks + 1)
    return (D - blocks) * share / share.sum() + 1


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.6])
def test_noise_is_the_share_of_weight_across_blocks(noise):
    D, blocks = 400, 5
    W, order = planted_graph(D, blocks=blocks, degree=20, noise=noise, seed=3)
    W, label = check_w(W), block_of(D, blocks, order)
    rows = np.repeat(np.arange(D), np.diff(W.indptr))
    across = W.data[label[rows] != label[W.indices]].sum()
    assert across / W.data.sum() == pytest.approx(noise, abs=1e-12)
    assert W.nnz == pytest.approx(D * 20, rel=0.1)


def test_heavy_blocks_follow_zipf():
    D, blocks = 1000, 6
    W, order = planted_graph(D, blocks=blocks, sizes="heavy", degree=10, noise=0.0)
    lengths = zipf_lengths(D, blocks)
    inside = W[order][:, order]
    edges = np.round(np.cumsum(lengths)).astype(int)[:-1]
    for cut in edges:  # no edge crosses a boundary between blocks (to one position, which rounding may shift)
        assert not inside[: cut - 1, cut + 1 :].nnz
    assert lengths[0] > 4 * lengths[-1]


@pytest.mark.parametrize("make", [planted_graph, band_graph])
def test_the_planted_order_is_good_and_the_identity_is_not(make):
    W, order = make(512, seed=1)
    cost = CostConfig(k=8)
    planted, identity = evaluate_cost(W, order, cost), evaluate_cost(W, np.arange(512), cost)
    rng = np.random.default_rng(0)
    shuffled = evaluate_cost(W, rng.permutation(512), cost)
    assert planted.C < 0.5 * identity.C and planted.Q > identity.Q + 0.3
    assert identity.C == pytest.approx(shuffled.C, rel=0.05)


def test_bands_join_each_element_to_those_that_follow():
    W, order = band_graph(50, width=3, seed=2)
    rows, cols = W[order][:, order].nonzero()
    assert set(np.abs(rows - cols)) == {1, 2, 3}
    assert W.nnz == 2 * (3 * 50 - 6)
    noisy, order = band_graph(300, width=4, noise=0.25, seed=2)
    rows, cols = noisy.nonzero()
    pos = np.argsort(order)
    far = noisy.data[np.abs(pos[rows] - pos[cols]) > 4].sum() / noisy.data.sum()
    assert far == pytest.approx(0.25)


@pytest.mark.parametrize("make", [planted_graph, band_graph])
def test_a_seed_gives_the_same_bytes_and_another_seed_does_not(make):
    (a, order_a), (b, order_b), (c, _) = (make(200, seed=seed) for seed in (5, 5, 6))
    assert hash_graph(check_w(a)) == hash_graph(check_w(b)) != hash_graph(check_w(c))
    assert order_a.tolist() == order_b.tolist()


def test_unshuffled_labels_are_the_planted_order():
    W, order = planted_graph(100, blocks=4, degree=6, noise=0.0, shuffled=False)
    assert order.tolist() == list(range(100)) and not W[:25, 25:].nnz


@pytest.mark.parametrize("D", [1, 2, 3, 7])
def test_tiny_graphs_hold_the_contract(D):
    assert check_w(planted_graph(D, blocks=1, noise=0.0)[0]).nnz == D * (D - 1)
    assert check_w(planted_graph(D, blocks=D, noise=0.1 * (D > 1))[0]).shape == (D, D)
    assert check_w(band_graph(D, width=1)[0]).nnz == 2 * (D - 1)


def test_events_touch_one_block_but_for_the_noise():
    events, order = planted_events(600, blocks=6, events=2000, per_event=10, noise=0.2, seed=4)
    label = block_of(600, 6, order)[events.ids].reshape(2000, 10)
    home = np.array([np.bincount(row, minlength=6).argmax() for row in label])
    assert (label != home[:, None]).mean() == pytest.approx(0.2 * 5 / 6, abs=0.01)
    assert np.bincount(events.ids, minlength=600).std() < 3 * np.sqrt(20000 / 600)
    clean, order = planted_events(600, blocks=6, events=50, per_event=10, noise=0.0, burst=5)
    label = block_of(600, 6, order)[clean.ids].reshape(10, 50)
    assert (label == label[:, :1]).all()


def test_events_of_one_seed_are_the_same():
    (a, _), (b, _), (c, _) = (planted_events(100, events=50, seed=seed) for seed in (1, 1, 2))
    assert a.ids.tobytes() == b.ids.tobytes() != c.ids.tobytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 0}, "blocks is an integer in 1..64"),
        ({"blocks": 65}, "blocks is an integer in 1..64"),
        ({"sizes": "zipf"}, "sizes is one of"),
        ({"noise": 1.0}, r"noise is a share in \[0, 1\)"),
        ({"noise": float("nan")}, "noise is a share"),
        ({"degree": 0}, "degree is a positive number"),
        ({"seed": -1}, "seed is an integer >= 0"),
        ({"blocks": 1, "noise": 0.1}, "at least 2 of them"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ConfigError, match=message):
        planted_graph(64, **settings)


def test_refusals_of_bands_and_events():
    with pytest.raises(ConfigError, match="D, an integer"):
        band_graph(0)
    with pytest.raises(ConfigError, match="width is an integer in 1..9"):
        band_graph(10, width=10)
    with pytest.raises(ConfigError, match="per_event"):
        planted_events(10, blocks=2, per_event=0)
