"""Weights from the whole range of doubles: no crash, no infinity, the same layout at every scale."""

import json
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from solver_instances import planted_blocks, random_graph

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph import build_w, check_w, mask_graph
from icd_lib.paths import project_root
from icd_lib.solver import ORDERINGS, CostConfig, evaluate_cost, fit_permutation, lower_bound
from icd_lib.solver.scale import LEAST_SHARE, on_scale

TINIEST, LARGEST = 5e-324, np.finfo(float).max


def times(W, exponent):
    return sp.csr_array((np.ldexp(W.data, exponent), W.indices, W.indptr), shape=W.shape)


def exact(W, bits=12):
    """The graph with weights of few bits, so that a power of two rounds nothing, not even into the subnormals."""
    scaled = np.ceil(W.data / W.data.max() * 2**bits)
    return sp.csr_array((scaled, W.indices, W.indptr), shape=W.shape)


def solve(W, **settings):
    pi, stats = fit_permutation(W, **({"refine_steps": 20} | settings))
    assert np.array_equal(np.sort(pi), np.arange(W.shape[0]))
    assert all(np.isfinite(value) for term in ("before", "after") for value in stats[term].values())
    return pi, stats


def test_a_graph_on_scale_is_taken_as_it_is():
    W = check_w(random_graph(30))
    assert on_scale(W) is W and on_scale(check_w(times(W, 90))).data[0] == np.ldexp(W.data[0], 90)
    empty = check_w(sp.csr_array((3, 3)))
    assert on_scale(empty) is empty


@pytest.mark.parametrize("size", [8, 40, 300])
@pytest.mark.parametrize("exponent", [-1074, -1000, -300, 60, 500, 1011])
def test_a_power_of_two_changes_neither_the_layout_nor_its_cost(size, exponent):
    W = exact(random_graph(size, 3, 0.2))
    pi, stats = solve(W)
    moved = check_w(times(W, exponent))
    assert moved.nnz == W.nnz and (moved.data.max() < 1e-300 or moved.data.min() > 1e-306)
    other, told = solve(moved)
    assert np.array_equal(pi, other) and stats["after"] == told["after"] and stats["skipped"] == told["skipped"] == {}
    assert evaluate_cost(moved, pi) == evaluate_cost(W, pi) and lower_bound(moved) == lower_bound(W)


@pytest.mark.parametrize("method", ORDERINGS)
@pytest.mark.parametrize("weight", [TINIEST, 2.0**-1030, 1e-310, 2.3e-308, LARGEST, 2.0**1023])
def test_every_start_takes_every_weight(method, weight):
    W = random_graph(90, 1, 0.2)
    W.data[:] = 1.0
    plain, _ = solve(W, method=method, refine_steps=0)
    W.data[:] = weight
    pi, stats = solve(W, method=method, refine_steps=0)
    if np.frexp(weight)[0] == 0.5:  # a power of two; others round sums, and equal weights have ties to tip
        assert np.array_equal(plain, pi)
    assert not stats["skipped"]


@pytest.mark.parametrize("method", ["spectral", "louvain"])
def test_a_graph_of_many_levels_takes_tiny_weights(method):
    W = planted_blocks(4200, 60, noise=0.0)[0]
    first, _ = solve(W, method=method, refine_steps=0)
    assert np.array_equal(first, solve(times(W, -900), method=method, refine_steps=0)[0])


CODE = """
import json, sys
import numpy as np, scipy.sparse as sp
from icd_lib.solver import ORDERINGS, fit_permutation, lower_bound
rng = np.random.default_rng(int(sys.argv[1]))
found = []
for size in (2, 5, 9, 33, 120, 280):
    exponent = rng.integers(-1074, 1024, (size, size))
    upper = np.triu(np.ldexp(rng.uniform(0.5, 1, (size, size)), exponent) * (rng.random((size, size)) < 0.3), 1)
    upper[0, -1], upper[0, 1] = 5e-324, np.finfo(float).max
    W = sp.csr_array(upper + upper.T)
    for method in ("auto", *ORDERINGS):
        pi, stats = fit_permutation(W, refine_steps=10, method=method)
        assert np.array_equal(np.sort(pi), np.arange(size)) and np.isfinite(list(stats["after"].values())).all()
        assert lower_bound(W)[0] <= stats["after"]["J"] + 1e-9
        found.append(pi.tolist())
print(json.dumps(found))
"""


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_mixtures_of_the_whole_range_neither_crash_nor_differ_from_run_to_run(seed):
    command = [
        sys.executable,
        "-W",
        "error::RuntimeWarning",
        "-c",
        CODE,
        str(seed),
    ]  # a process: METIS would take this one with it
    first, again = (
        json.loads(subprocess.run(command, capture_output=True, text=True, cwd=project_root(), check=True).stdout)
        for _ in range(2)
    )
    assert first == again


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(min_value=0, max_value=LARGEST), min_size=3, max_size=21))
def test_any_weights_give_a_layout_of_finite_cost(weights):
    size = 7
    upper = np.zeros((size, size))
    rows, cols = np.triu_indices(size, 1)
    upper[rows[: len(weights)], cols[: len(weights)]] = weights
    W = check_w(sp.csr_array(upper + upper.T))
    solve(W)
    kept = on_scale(W)
    assert (
        not kept.nnz
        or (0.5 if kept is not W else 0) <= kept.data.max()
        and kept.data.min() >= LEAST_SHARE * kept.data.max()
    )
    for how in ("row", "sym"):
        W = build_w(sp.csr_array(upper / 64 + upper.T / 64), normalize=how)  # their sum is finite
        assert not W.nnz or (0 < W.data.min() and W.data.max() <= 1 + 1e-15)


def test_normalized_weights_of_a_tiny_and_of_a_huge_graph_are_those_of_a_plain_one():
    W = exact(random_graph(20, 5, 0.4))
    for how in ("row", "sym"):
        plain = build_w(W, normalize=how)
        for exponent in (-1074, 1000):
            assert np.allclose(build_w(times(W, exponent), normalize=how).data, plain.data, rtol=1e-12)


def test_traces_with_tiny_bytes_are_laid_out_and_with_too_many_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    for nbytes in ("1e-310", "5e-324", "1e-5", "1e300"):
        lines = [f'{{"ids": [{i % 40}, {(i * 7 + 1) % 40}, {i % 3 + 40}], "bytes": {nbytes}}}' for i in range(200)]
        path.write_text("\n".join(lines))
        W = build_w(path)
        assert W.data.min() > 0
        solve(W)
        assert build_w(path, normalize="row").data.max() <= 1
    path.write_text('{"ids": [0, 1], "bytes": 1e308}\n' * 3)
    with pytest.raises(SolverNotConverged, match="sum to inf bytes; divide them all by a constant"):
        build_w(path)


def test_masks_and_activations_beyond_float64_are_refused_or_scaled():
    alive, base = np.ones(12, bool), exact(random_graph(12, 1, 0.6))
    plain = mask_graph(alive, base=base)
    for exponent in (-1074, 1000):
        assert np.allclose(mask_graph(alive, base=times(base, exponent)).data, plain.data, rtol=1e-12)
    with pytest.raises(SolverNotConverged, match="weights are shares of events"):
        mask_graph(alive, np.full(12, 1e200))
    with pytest.raises(ConfigError, match="up to 1e\\+60"):
        mask_graph(alive, bytes_per_element=1e300)
    X = np.random.default_rng(0).standard_normal((50, 6))
    for scale in (1e-200, 1e200):
        with pytest.raises(SolverNotConverged, match="multiply all activations by a constant"):
            build_w(X * scale)
    assert build_w(X * 2.0**-400).nnz == build_w(X).nnz == 30


@pytest.mark.parametrize("name, value", [("alpha", 1e308), ("mu", np.nan), ("k", 2**40), ("g", 2**70), ("h", np.inf)])
def test_settings_of_the_cost_beyond_reason_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"cost\.{name} is at least \d and at most"):
        CostConfig(**{name: value})


def test_more_blocks_than_elements_are_a_block_each():
    W = random_graph(30, 2)
    many, each = (evaluate_cost(W, np.arange(30), CostConfig(k=k)) for k in (2**31 - 1, 30))
    assert many == each
