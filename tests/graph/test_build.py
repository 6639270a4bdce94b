"""The one door to access graphs: kinds, what is said about dropped edges, normalization, repeatability, memory."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph import (
    GRAPH_KINDS,
    CoactivationStream,
    build_w,
    check_w,
    hash_graph,
    mask_graph,
    planted_events,
    planted_graph,
    trace_graph,
)

X = np.random.default_rng(0).normal(size=(50, 6))
ALIVE = np.array([True, False, True, True, True, True])
EVENTS, _ = planted_events(40, blocks=4, events=200, per_event=5)
SOURCES = {
    "mock": (40, {"blocks": 4, "degree": 6, "seed": 2}),
    "trace": (EVENTS, {"window": 2}),
    "co-activation": (X, {}),
    "mask": (ALIVE, {}),
    "pytorch": (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), {"example_inputs": torch.ones(1, 3)}),
    "matrix": (planted_graph(40, blocks=4, degree=6)[0], {}),
}


def test_each_kind_equals_its_builder():
    direct = CoactivationStream(6, 12).update(X).graph().toarray()
    np.testing.assert_array_equal(build_w(X, nnz_cap=12).toarray(), direct)
    np.testing.assert_allclose(build_w(iter([X[:20], X[20:]]), kind="co-activation", nnz_cap=12).toarray(), direct)
    np.testing.assert_array_equal(build_w(ALIVE).toarray(), mask_graph(ALIVE).toarray())
    np.testing.assert_array_equal(build_w(EVENTS, window=2).toarray(), trace_graph(EVENTS, window=2).toarray())
    planted, _ = planted_graph(40, blocks=4, degree=6, seed=2)
    np.testing.assert_array_equal(build_w(40, blocks=4, degree=6, seed=2).toarray(), planted.toarray())
    np.testing.assert_array_equal(build_w(planted).toarray(), planted.toarray())


@pytest.mark.parametrize("kind", sorted(GRAPH_KINDS))
@pytest.mark.parametrize("normalize", ["none", "row", "sym"])
def test_every_kind_holds_the_contract_repeats_and_is_found_by_its_source(kind, normalize):
    source, settings = SOURCES[kind]
    W, meta = build_w(source, kind=kind, normalize=normalize, return_meta=True, **settings)
    again, found = build_w(source, normalize=normalize, return_meta=True, **settings)
    assert hash_graph(check_w(W)) == hash_graph(again) == meta["sha256"] and found == meta
    assert meta["kind"] == kind and meta["D"] == W.shape[0] and meta["normalize"] == normalize
    assert meta["edges"] == W.nnz // 2 > 0


@pytest.mark.parametrize("kind", sorted(set(GRAPH_KINDS) - {"mask"}))
def test_the_cap_keeps_the_heaviest_and_says_what_it_dropped(kind):
    source, settings = SOURCES[kind]
    full, every = build_w(source, kind=kind, return_meta=True, **settings)
    capped, meta = build_w(source, kind=kind, nnz_cap=11, return_meta=True, **settings)
    assert capped.nnz == 10 and capped.data.min() >= np.sort(full.data)[-10]
    assert every["dropped_edges"] == 0 == every["dropped_bytes"] and every["bytes"] == pytest.approx(full.sum() / 2)
    assert meta["edges"] == 5 and meta["dropped_edges"] == full.nnz // 2 - 5
    assert meta["dropped_bytes"] == pytest.approx((full.sum() - capped.sum()) / 2)


def test_a_thinned_mask_keeps_its_bytes_and_says_so():
    alive = np.ones(60, bool)
    W, meta = build_w(alive, nnz_cap=200, return_meta=True)
    assert meta["alive"] == 60 and not meta["exact"] and meta["dropped_edges"] == 60 * 59 // 2 - W.nnz // 2 > 0
    assert meta["dropped_bytes"] == 0 and meta["bytes"] == pytest.approx(4 * 60 * 59 / 2)
    assert build_w(alive[:5], return_meta=True)[1]["exact"]


def test_ties_at_the_cap_go_to_the_first_in_row_order():
    ring = sp.csr_array(np.roll(np.eye(6), 1, 1) + np.roll(np.eye(6), -1, 1))
    W = build_w(ring, nnz_cap=4)
    assert list(zip(*W.nonzero(), strict=True)) == [(0, 1), (0, 5), (1, 0), (5, 0)]


def test_the_hash_sees_shape_pattern_and_weights():
    W = build_w(40, blocks=4, degree=6)
    others = [W * 2, sp.csr_array(W[::-1][:, ::-1]), build_w(41, blocks=4, degree=6)]
    assert len({hash_graph(check_w(graph)) for graph in [W, *others]}) == 4


def test_refusals():
    with pytest.raises(ConfigError, match="did you mean 'co-activation'"):
        build_w(np.zeros((2, 2)), kind="coactivation")
    with pytest.raises(ConfigError, match="did you mean 'pytorch'"):
        build_w(nn.Linear(1, 1), kind="torch")
    with pytest.raises(ConfigError, match="did you mean 'row'"):
        build_w(ALIVE, normalize="rows")
    with pytest.raises(ConfigError, match="nnz_cap"):
        build_w(ALIVE, nnz_cap=1)
    with pytest.raises(SolverNotConverged, match="no batches"):
        build_w([])
    with pytest.raises(TypeError, match="nnz_kap"):
        build_w(np.array([True, True]), nnz_kap=3)
    with pytest.raises(SolverNotConverged, match=r"W\[0, 1\] = 1.0 but W\[1, 0\] = 2.0"):
        build_w(sp.csr_array(np.array([[0, 1.0], [2.0, 0]])))
    with pytest.raises(SolverNotConverged, match="is not finite"):
        build_w(sp.csr_array(np.array([[0, np.inf], [np.inf, 0]])))


LARGE = """
import resource
import numpy as np
from icd_lib.graph import build_w, planted_events
W, meta = build_w(50_000, blocks=20, degree=200, nnz_cap=20_000_000, return_meta=True)
assert abs(W.nnz - 10_000_000) < 100_000, W.nnz
assert meta["dropped_edges"] == 0
row = build_w(W, nnz_cap=9_000_000, normalize="row")
assert row.nnz == 9_000_000
del W, row
events, _ = planted_events(50_000, blocks=20, events=190_000, per_event=8)
W, meta = build_w(events, nnz_cap=20_000_000, return_meta=True)
assert W.shape == (50_000, 50_000) and W.nnz > 9_500_000 and meta["exact"], W.nnz
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_fifty_thousand_elements_with_ten_million_entries_fit_in_2_gb():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 2e9


WIDE = """
import resource
import numpy as np
from icd_lib.graph import CoactivationStream
D, rng = 50_000, np.random.default_rng(0)
stream, label = CoactivationStream(D, sketch_rows=256), np.arange(D) % 10
for _ in range(12):
    own = rng.standard_normal((64, 10), dtype=np.float32)[:, label]
    stream.update(own + 0.5 * rng.standard_normal((64, D), dtype=np.float32))
W = stream.graph()
rows = np.repeat(np.arange(D), np.diff(W.indptr))
assert W.nnz == 200_000 and (label[rows] == label[W.indices]).mean() > 0.99
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_co_activation_of_fifty_thousand_elements_fits_in_1_gb():
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 1e9
