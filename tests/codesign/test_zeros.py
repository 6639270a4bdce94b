"""Zeros that no removal reaches: counted, and held against what an order could spare."""

import numpy as np
import torch

from icd_lib.codesign.zeros import count_zeros, least_touched, read_patterns, touched
from icd_lib.models.families import find_adapter
from tests.tiny_problems import small_model


def test_tiles_are_counted():
    reads = np.zeros((2, 8), dtype=bool)
    reads[0, [0, 3, 6]] = True
    reads[1, [4, 5]] = True
    assert touched(reads, 2) == (3 + 1) / 8
    assert least_touched(reads, 2) == (2 + 1) / 8
    assert touched(reads, 3) == (3 + 1) / 6  # the last tile is short


def test_the_bound_is_met_by_an_order_that_exists_and_undercut_by_none():
    generator = np.random.default_rng(0)
    reads = generator.random((30, 24)) < 0.3
    for _ in range(50):
        assert touched(reads[:, generator.permutation(24)], 4) >= least_touched(reads, 4)
    blocks = np.kron(np.eye(6, dtype=bool), np.ones((5, 4), dtype=bool))
    assert touched(blocks, 4) == least_touched(blocks, 4)


def test_every_matrix_along_an_axis_is_read():
    model = small_model("encoder")
    axis = find_adapter(model).axis("heads.0")
    attention = model.encoder.layer[0].attention
    patterns = list(read_patterns(model, axis))
    assert len(patterns) == 4  # query, key, value, output
    assert all(pattern.shape == (attention.self.query.in_features, axis.size) for pattern in patterns)


def test_scattered_blocks_are_found_by_the_solver():
    model = small_model("encoder", intermediate_size=64)
    layer = model.encoder.layer[0]
    order = np.random.default_rng(1).permutation(64)
    with torch.no_grad():
        for weight in (layer.intermediate.dense.weight, layer.output.dense.weight.T):
            width = weight.shape[1]
            keep = np.kron(np.eye(4), np.ones((16, -(-width // 4))))[:, :width][order]
            weight *= torch.from_numpy(keep)
    found = count_zeros(model, 16)
    assert [entry.axis for entry in found] == ["ffn.0"]
    assert found[0].now > 0.9
    assert found[0].solved == found[0].least == 0.25
    assert found[0].zeros == 0.75


def test_a_model_without_zeros_has_nothing_to_say():
    assert count_zeros(small_model("encoder"), 4) == []
