"""The co-activation stream against numpy's correlation, and its refusals."""

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
    with pytest.raises(ResourceError, match="split the axis"):
        CoactivationStream(50_000)
