"""Counting co-accesses: against the definition, whatever the chunks, the window, the sample and the table."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph import CoaccessStream, Events, check_w, hash_graph, planted_events


def coaccess_reference(lists, nbytes, D, window=1):
    """W from its definition, pair by pair."""
    W = np.zeros((D, D))
    for e, f in itertools.product(range(len(lists)), repeat=2):
        if e == f or (e < f < e + window):
            for i, j in itertools.product(set(lists[e]), set(lists[f])):
                if i != j and (e < f or i < j):
                    W[i, j] += min(nbytes[e], nbytes[f])
                    W[j, i] += min(nbytes[e], nbytes[f])
    return W


def make(lists, nbytes, D):
    offsets = np.cumsum([0] + [len(ids) for ids in lists])
    return Events(np.array(list(itertools.chain(*lists)), int), offsets, np.array(nbytes, float), D)


def cut(events, sizes):
    first = 0
    for size in itertools.chain(sizes, itertools.repeat(10**9)):
        if first >= events.count:
            return
        last = min(first + size, events.count)
        start, end = events.offsets[first], events.offsets[last]
        offsets = events.offsets[first : last + 1] - start
        yield Events(events.ids[start:end], offsets, events.nbytes[first:last], events.size)
        first = last


def count(chunks, **settings):
    stream = CoaccessStream(**settings)
    for chunk in chunks:
        stream.update(chunk)
    W, meta = stream.graph()
    return check_w(W), meta


streams = st.lists(
    st.tuples(st.lists(st.integers(0, 7), max_size=6), st.sampled_from([0.0, 1.0, 2.5, 64.0])), min_size=1, max_size=9
)


@settings(deadline=None)  # the first call compiles
@given(streams, st.integers(1, 4), st.lists(st.integers(1, 3), max_size=4))
def test_equals_the_definition_for_any_window_and_any_chunks(stream, window, sizes):
    lists, nbytes = zip(*stream, strict=True)
    W, meta = count(cut(make(lists, nbytes, 8), sizes), window=window)
    np.testing.assert_array_equal(W.toarray(), coaccess_reference(lists, nbytes, 8, window))
    assert meta["exact"] and meta["events"] == len(lists) and meta["accesses"] == sum(map(len, lists))
    assert meta["bytes"] == W.sum() / 2 and meta["dropped_edges"] == 0


def test_many_edges_outgrow_the_first_table():
    events, _ = planted_events(700, blocks=1, noise=0.0, events=12_000, per_event=20)
    X = np.zeros((events.count, 700))
    X[events.event_of_access(), events.ids] = 8
    expected = X.T @ X
    np.fill_diagonal(expected, 0)
    W, meta = count([events], nnz_cap=700 * 700)
    assert W.nnz > 2 * 0.6 * 2**16
    np.testing.assert_array_equal(W.toarray(), expected)


def test_the_cap_keeps_the_heaviest_edges_and_says_what_it_dropped():
    events, _ = planted_events(60, blocks=6, events=300, per_event=8, nbytes=10)
    full, every = count([events])
    capped, meta = count([events], nnz_cap=101)
    assert capped.nnz == 100 and capped.data.min() >= np.sort(full.data)[-100]
    assert meta["dropped_edges"] == full.nnz // 2 - 50
    assert meta["dropped_bytes"] == pytest.approx((full.sum() - capped.sum()) / 2)
    assert every["dropped_edges"] == 0 == every["dropped_bytes"]


@pytest.mark.parametrize(("sizes", "window"), [([200], 1), ([97, 200], 2), ([30, 150, 8], 3)])
def test_a_sample_of_large_events_is_unbiased_and_repeatable(sizes, window):
    """The sampled weights scatter around the exact ones and their sum is the exact sum where events do not overlap."""
    rng = np.random.default_rng(0)
    lists = [rng.choice(200, size, replace=False).tolist() for size in sizes]
    exact = coaccess_reference(lists, [4.0] * len(lists), 200, window)
    repeats = 150
    total = np.zeros_like(exact)
    for repeat in range(repeats):  # the number of an event in the stream seeds its sample
        silent = [[]] * repeat * 3
        W, meta = count([make(silent + lists, [4.0] * (len(silent) + len(lists)), 200)], window=window, max_event_ids=9)
        total += W.toarray()
    assert meta["sampled_events"] == sum(size > 9 for size in sizes) and not meta["exact"]
    assert W.nnz < 0.5 * np.count_nonzero(exact)
    error = total / repeats - exact
    # A pair is drawn with probability about 8 / n, so its mean over the repeats has this relative standard error.
    spread = np.sqrt(max(sizes) / 8 / repeats) * 4 * window
    assert abs(error[exact > 0].mean()) < 0.02 * exact[exact > 0].mean()
    assert np.abs(error).max() < 6 * spread
    again, _ = count([make(silent + lists, [4.0] * (len(silent) + len(lists)), 200)], window=window, max_event_ids=9)
    assert hash_graph(again) == hash_graph(W)


def test_one_sampled_event_keeps_its_bytes():
    events = make([list(range(500))], [4.0], 500)
    W, _ = count([events], max_event_ids=21)
    assert W.sum() / 2 == pytest.approx(4 * 500 * 499 / 2) and W.nnz == 2 * 500 * 10
    assert set(np.diff(W.indptr)) == {20}


@pytest.mark.parametrize("chunks", [[], [1] * 400, [17, 90, 3]])
def test_pruning_bounds_the_error_and_does_not_depend_on_chunks(chunks):
    events, _ = planted_events(300, blocks=60, events=3000, per_event=10, noise=0.1, seed=1)
    exact, _ = count([events], nnz_cap=300 * 300)
    W, meta = count(cut(events, chunks), nnz_cap=2000, max_edges=4000)
    assert meta["prunes"] > 0 and not meta["exact"] and W.nnz == 2000
    rows = np.repeat(np.arange(300), np.diff(W.indptr))
    low = exact.toarray()[rows, W.indices] - W.data
    assert low.min() >= 0 and low.max() <= meta["undercount_bytes"]
    kept = meta["bytes"] + meta["dropped_bytes"] + meta["pruned_bytes"]
    assert kept == pytest.approx(exact.sum() / 2)
    whole, _ = count([events], nnz_cap=2000, max_edges=4000)
    assert hash_graph(W) == hash_graph(whole)
    # What is heavier than the bound cannot have been lost.
    strong = np.argwhere(np.triu(exact.toarray()) > meta["undercount_bytes"] + W.data.min())
    assert len(strong) > 100 and (W.toarray()[strong[:, 0], strong[:, 1]] > 0).all()


def test_an_event_larger_than_the_table_is_counted_whole():
    events = make([list(range(400)), [0, 1], list(range(400))], [1.0, 1.0, 1.0], 400)
    W, meta = count([events], nnz_cap=400 * 400, max_event_ids=400, max_edges=100)
    assert W.nnz > 100 and meta["prunes"] >= 1


def test_the_axis_grows_with_the_chunks():
    W, _ = count([make([[0, 1]], [1.0], 2), make([[1, 4]], [2.0], 5)])
    assert W.shape == (5, 5) and W[4, 1] == 2.0 and W[0, 1] == 1.0


def test_refusals():
    with pytest.raises(ConfigError, match="window is an integer >= 1"):
        CoaccessStream(window=0)
    with pytest.raises(ConfigError, match="max_event_ids is an integer >= 3"):
        CoaccessStream(max_event_ids=2)
    with pytest.raises(ConfigError, match="max_edges"):
        CoaccessStream(max_edges=1.5)
    with pytest.raises(SolverNotConverged, match="Events, got list"):
        CoaccessStream().update([[1, 2]])
    with pytest.raises(SolverNotConverged, match="no events"):
        CoaccessStream().graph()
