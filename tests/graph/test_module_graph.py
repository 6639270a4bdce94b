"""W of a module's tensors: against the formula on a chain, aliases, ties, hops, decay and refusals."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.errors import ConfigError
from icd_lib.graph import build_w, hash_graph
from icd_lib.graph.module_graph import build_module, module_graph


class Chain(nn.Module):
    """x (2, 4) -> add a parameter (4) -> multiply by a buffer (4) -> add x again."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(4))
        self.register_buffer("scale", torch.ones(4))

    def forward(self, x):
        return (x + self.shift) * self.scale + x


X = torch.ones(2, 4)
SHIFT, SCALE, INPUT, ADD, MUL, ADD_1 = range(6)
BYTES = np.array([16, 16, 32, 32, 32, 32])
TOUCHES = [{INPUT, SHIFT, ADD}, {ADD, SCALE, MUL}, {MUL, INPUT, ADD_1}]
FEEDS = {1: {(0, 1), (1, 2)}, 2: {(0, 1), (1, 2), (0, 2)}}  # operation pairs within so many steps


def reference(hops, decay, byte_weight):
    W = np.zeros((6, 6))
    for t in range(3):
        for i, j in itertools.permutations(TOUCHES[t], 2):
            W[i, j] += 1
    for t, later in FEEDS.get(hops - 1, set()):
        for i, j in itertools.product(TOUCHES[t], TOUCHES[later]):
            if i != j:
                W[i, j] += decay ** (later - t)
                W[j, i] += decay ** (later - t)
    return W * np.minimum.outer(BYTES, BYTES) ** float(byte_weight)


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize(("decay", "byte_weight"), [(0.5, 1.0), (0.0, 1.0), (1.0, 0.0), (0.3, 0.5)])
def test_a_chain_equals_the_formula(hops, decay, byte_weight):
    settings = {"hops": hops, "decay": decay, "byte_weight": byte_weight}
    W, meta = build_module(Chain(), X, **settings)
    np.testing.assert_allclose(W.toarray(), reference(**settings))
    assert [e["name"] for e in meta["elements"]] == ["shift", "scale", "x", "add", "mul", "add_1"]
    assert [e["bytes"] for e in meta["elements"]] == BYTES.tolist() and meta["operations"] == 3
    assert [e["kind"] for e in meta["elements"]] == ["parameter", "buffer", "input"] + 3 * ["activation"]


def test_distant_reuse_decays():
    """x is read by the first operation and the last: the farther apart they run, the less they bind."""
    W = [module_graph(Chain(), X, hops=3, decay=d)[ADD, ADD_1] for d in (0.1, 0.5, 0.9)]
    assert W[0] < W[1] < W[2]


class Aliases(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 10, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids):
        h = self.embed(ids)
        a, b = h.split(2, -1)
        h = torch.cat([b, a], -1).view(-1, 2, 2).transpose(0, 1)
        h = torch.relu_(h + 1)
        values, _ = torch.max(h.reshape(2, -1), -1)
        with torch.no_grad():
            values = values * 2
        return self.out(h.reshape(-1, 4)), values


def test_views_ties_and_results_in_place_are_one_element():
    W, meta = build_module(Aliases(), torch.arange(4))
    names = [e["name"] for e in meta["elements"]]
    assert sum("weight" in name for name in names) == 1  # tied
    assert not any(word in name for name in names for word in ("split", "view", "transpose", "relu", "getitem"))
    assert {"embedding", "cat", "add"} <= set(names) and len([n for n in names if n.startswith("max")]) == 2
    tied = next(k for k, name in enumerate(names) if "weight" in name)
    assert W[tied, names.index("linear")] > 0 and W[tied, names.index("embedding")] > 0


def test_module_program_and_fx_graph_give_the_same_graph():
    module = Aliases()
    program = torch.export.export(module, (torch.arange(4),))
    inputs = {"ids": torch.arange(4)}
    hashes = {
        hash_graph(build_w(module, example_inputs=(torch.arange(4),))),
        hash_graph(build_w(module, example_inputs=inputs)),
        hash_graph(build_w(program)),
    }
    assert len(hashes) == 1
    W = build_w(torch.fx.symbolic_trace(Chain()), example_inputs=X)
    np.testing.assert_array_equal(W.toarray(), build_w(Chain(), example_inputs=X).toarray())


def test_build_w_caps_and_normalizes_modules():
    W, meta = build_w(Aliases(), example_inputs=torch.arange(4), nnz_cap=20, normalize="sym", return_meta=True)
    assert W.nnz == 20 and meta["dropped_edges"] > 0 and meta["kind"] == "pytorch" and W.max() <= 1 + 1e-12


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_refusals():
    with pytest.raises(ConfigError, match="needs example_inputs"):
        module_graph(Chain())
    with pytest.raises(ConfigError, match="cannot trace Branching: .*; check example_inputs"):
        module_graph(Branching(), X)
    with pytest.raises(ConfigError, match="cannot trace Chain"):
        module_graph(Chain(), {"y": X})
    with pytest.raises(ConfigError, match="got list"):
        module_graph([1, 2], X)
    for bad, message in (({"hops": 0}, "hops"), ({"decay": 1.5}, "decay"), ({"byte_weight": -1}, "byte_weight")):
        with pytest.raises(ConfigError, match=message):
            module_graph(Chain(), X, **bad)
