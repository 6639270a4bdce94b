"""The co-activation stream against numpy's correlation, and its refusals."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from icd_lib.errors import ConfigError, ResourceError, SolverNotConverged
from icd_lib.graph import CoactivationStream, check_w


@pytest.fixture
def activations():
    rng = np.random.default_rng(0)
    return rng.normal(size=(400, 12)) @ rng.normal(size=(12, 12)) + 3


def test_equals_numpy_correlation_in_bytes(activations):
    W = CoactivationStream(12).update(activations).graph(bytes_per_element=2).toarray()
    expected = np.abs(np.corrcoef(activations.T)) * 2 * 400
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(W, expected, rtol=1e-6)


def test_batches_add_up_and_torch_equals_numpy(activations):
    whole = CoactivationStream(12).update(activations).graph()
    parts = CoactivationStream(12)
    for batch in np.array_split(activations, 7):
        parts.update(torch.from_numpy(batch))
    np.testing.assert_allclose(parts.graph().toarray(), whole.toarray(), rtol=1e-6)


def test_cap_keeps_the_heaviest_and_reports_the_dropped_share(activations):
    full, capped = CoactivationStream(12).update(activations), CoactivationStream(12, nnz_cap=21).update(activations)
    all_edges, kept = full.graph(), check_w(capped.graph())
    assert full.dropped == 0 and kept.nnz == 20
    assert kept.data.min() >= np.sort(all_edges.data)[-20]
    assert capped.dropped == pytest.approx(1 - kept.data.sum() / all_edges.data.sum())


def test_same_input_same_bytes(activations):
    a, b = (CoactivationStream(12, 40).update(activations).graph() for _ in range(2))
    assert a.data.tobytes() == b.data.tobytes() and a.indices.tobytes() == b.indices.tobytes()


def test_constant_elements_have_no_edges(activations):
    activations[:, 5] = 0.1
    W = CoactivationStream(12).update(activations).graph().toarray()
    assert not W[5].any() and not W[:, 5].any() and W[0, 1] > 0


def test_one_element_has_an_empty_graph():
    assert CoactivationStream(1).update(np.ones((3, 1))).graph().nnz == 0


def test_refusals(activations):
    stream = CoactivationStream(12)
    with pytest.raises(SolverNotConverged, match="at least 2 tokens, got 0"):
        stream.graph()
    with pytest.raises(SolverNotConverged, match=r"\(tokens, 12\), got shape \(3, 4\)"):
        stream.update(np.zeros((3, 4)))
    with pytest.raises(SolverNotConverged, match="dtype int64"):
        stream.update(np.zeros((3, 12), dtype=np.int64))
    activations[7, 3] = np.nan
    with pytest.raises(SolverNotConverged, match="element 3 at token 7 is nan"):
        stream.update(activations)
    assert stream.tokens == 0
    with pytest.raises(ConfigError, match="D is"):
        CoactivationStream(0)
    with pytest.raises(ResourceError, match="sketch_rows = 0 needs 18.6 GiB.*split the axis"):
        CoactivationStream(50_000, sketch_rows=0)
    with pytest.raises(ConfigError, match="sketch_rows is an integer >= 0"):
        CoactivationStream(12, sketch_rows=-1)
    for ridge in (0, -1.0, np.inf, np.nan, True, "yes"):
        with pytest.raises(ConfigError, match="whiten is a ridge > 0"):
            CoactivationStream(12, whiten=ridge)


def communities(tokens, D, blocks, common=0.0, seed=0):
    """Activations of `blocks` interleaved communities, with a factor that all elements share."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((tokens, blocks))[:, np.arange(D) % blocks]
    return own + common * rng.standard_normal((tokens, 1)) + rng.standard_normal((tokens, D)) + 5


def test_a_sketch_of_as_many_rows_as_tokens_is_exact(activations):
    exact = CoactivationStream(12).update(activations).graph()
    stream = CoactivationStream(12, sketch_rows=400).update(activations)
    np.testing.assert_allclose(stream.graph().toarray(), exact.toarray(), rtol=1e-5)
    assert stream.standard_error == 0 and stream.meta["exact"]


@pytest.mark.parametrize("rows", [64, 256])
def test_a_sketch_errs_no_more_than_it_says(rows):
    X = communities(4000, 60, 4)
    exact = CoactivationStream(60).update(X)
    stream = CoactivationStream(60, sketch_rows=rows).update(X)
    error = (stream.graph().toarray() - exact.graph().toarray()) / (4 * 4000)
    assert not stream.meta["exact"] and stream.standard_error == pytest.approx(np.sqrt(2 / rows))
    off = error[~np.eye(60, dtype=bool)]
    assert 0.2 * stream.standard_error < off.std() < stream.standard_error
    assert np.abs(off).max() < 5 * stream.standard_error


def test_a_sketch_finds_the_communities():
    X = communities(6000, 300, 5)
    W = CoactivationStream(300, 300 * 58, sketch_rows=512).update(X).graph()
    rows = np.repeat(np.arange(300), np.diff(W.indptr))
    assert W.nnz == 300 * 58 and (rows % 5 == W.indices % 5).mean() > 0.999


def test_batches_of_a_sketch_add_up():
    X = communities(1000, 30, 3)
    whole, parts = CoactivationStream(30, sketch_rows=48).update(X), CoactivationStream(30, sketch_rows=48)
    for batch in np.array_split(X, 23):
        parts.update(batch)
    np.testing.assert_allclose(parts.graph().toarray(), whole.graph().toarray(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 50.0])
@pytest.mark.parametrize("rows", [0, 400])
def test_whitening_equals_its_formula(activations, ridge, rows):
    R = np.corrcoef(activations.T)
    whitened = R @ np.linalg.inv(R + ridge * np.eye(12))
    expected = np.abs(whitened) / np.sqrt(np.outer(whitened.diagonal(), whitened.diagonal())) * 4 * 400
    np.fill_diagonal(expected, 0)
    stream = CoactivationStream(12, sketch_rows=rows, whiten=ridge).update(activations)
    np.testing.assert_allclose(stream.graph().toarray(), expected, rtol=1e-4, atol=1e-2)
    assert not stream.graph().toarray()[:, 5].any() == (activations[:, 5].std() == 0)


@pytest.mark.parametrize("rows", [0, 64])
def test_whitening_leaves_a_constant_element_without_edges(activations, rows):
    activations[:, 5] = 2.0
    W = CoactivationStream(12, sketch_rows=rows, whiten=1.0).update(activations).graph().toarray()
    assert not W[5].any() and W[0, 1] > 0


def test_whitening_uncovers_communities_under_a_common_factor():
    X = communities(3000, 60, 4, common=4.0)
    same = np.equal.outer(np.arange(60) % 4, np.arange(60) % 4) & ~np.eye(60, dtype=bool)
    contrast = []
    for ridge in (None, 1.0):
        W = CoactivationStream(60, whiten=ridge).update(X).graph().toarray()
        contrast.append(W[same].mean() / W[~same & ~np.eye(60, dtype=bool)].mean())
    assert contrast[0] < 1.2 and contrast[1] > 3


@pytest.mark.parametrize("rows", [0, 64])
def test_blocks_of_rows_do_not_change_the_graph(rows, monkeypatch):
    X = communities(500, 40, 4)
    whole = CoactivationStream(40, 200, sketch_rows=rows).update(X)
    expected = whole.graph()
    monkeypatch.setattr("icd_lib.graph.coactivation._BLOCK", 3 * 40)
    again = whole.graph()
    np.testing.assert_allclose(again.toarray(), expected.toarray(), rtol=1e-5)
    assert whole.meta["edges"] == 100 and whole.meta["dropped_edges"] == 40 * 39 // 2 - 100
    assert whole.dropped == pytest.approx(
        whole.meta["dropped_bytes"] / (expected.sum() / 2 + whole.meta["dropped_bytes"])
    )


THREADS = """
import numpy as np
from icd_lib.graph import build_w, hash_graph
X = np.random.default_rng(0).standard_normal((700, 300)) @ np.random.default_rng(1).standard_normal((300, 300))
for settings in ({}, {"sketch_rows": 128}, {"whiten": 0.5}, {"whiten": 0.5, "sketch_rows": 128}):
    print(hash_graph(build_w(X, nnz_cap=5000, **settings)))
"""


def test_the_number_of_threads_does_not_change_a_byte():
    hashes = {
        subprocess.run(
            [sys.executable, "-c", THREADS],
            env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(hashes) == 1 and len(set(hashes.pop().split())) == 4
