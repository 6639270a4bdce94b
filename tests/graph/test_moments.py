import numpy as np
import pytest
import torch

from icd_lib.graph.coactivation import CoactivationStream
from icd_lib.graph.contract import check_w
from icd_lib.graph.moments import correlation_graph
from icd_lib.transforms.sparsity.obs import Moments


def gram_of(X):
    moments = Moments.empty(X.shape[1], 1)
    moments.update(torch.from_numpy(X), torch.zeros(len(X), 1, dtype=torch.float64))
    return moments.gram.numpy()


def activations(tokens=200, size=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((tokens, 3)) @ rng.standard_normal((3, size)) + rng.standard_normal((tokens, size)) + 2


def test_same_graph_as_the_stream_over_the_activations():
    X = activations()
    stream = CoactivationStream(12, 10_000)
    stream.update(X)
    assert np.allclose(correlation_graph(gram_of(X)).toarray(), stream.graph(4).toarray(), rtol=1e-5)


def test_weights_are_correlation_times_bytes_times_tokens():
    X = activations()
    wanted = np.abs(np.corrcoef(X.T)) * 4 * len(X)
    np.fill_diagonal(wanted, 0)
    graph = check_w(correlation_graph(gram_of(X)))
    assert np.allclose(graph.toarray(), wanted, rtol=1e-5)


def test_units_of_several_columns_correlate_by_the_root_of_rv():
    X, unit = activations(size=12), 3
    centred = X - X.mean(0)
    parts = centred.reshape(len(X), 4, unit).transpose(1, 0, 2)

    def inner(i, j):
        return np.linalg.norm(parts[i].T @ parts[j])

    wanted = np.array([[inner(i, j) / np.sqrt(inner(i, i) * inner(j, j)) for j in range(4)] for i in range(4)])
    np.fill_diagonal(wanted, 0)
    graph = correlation_graph(gram_of(X), unit).toarray()
    assert np.allclose(graph, wanted * 4 * unit * len(X), rtol=1e-5)


def test_correlation_does_not_see_scale_shift_or_sign():
    X = activations()
    changed = X * np.linspace(-3, 5, 12) + np.arange(12)
    assert np.allclose(
        correlation_graph(gram_of(X)).toarray(), correlation_graph(gram_of(changed)).toarray(), rtol=1e-4
    )


def test_a_constant_column_has_no_edges():
    X = activations()
    X[:, 4] = 0
    graph = correlation_graph(gram_of(X)).toarray()
    assert not graph[4].any()
    assert graph[5].any()


@pytest.mark.parametrize("cap", [2, 20, 60])
def test_the_cap_keeps_the_heaviest_edges(cap):
    X = activations()
    full, capped = correlation_graph(gram_of(X)), correlation_graph(gram_of(X), nnz_cap=cap)
    assert capped.nnz == cap
    assert np.array_equal(np.sort(capped.data), np.sort(full.data)[-cap:])
