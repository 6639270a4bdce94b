"""Weights in groups inside an OpenVINO graph: the same function as their values, in fewer bytes."""

import numpy as np
import pytest
import torch

from icd_lib.decoding.grouped import PREFIX, Grouped, pack_weights
from icd_lib.decoding.openvino import FP32, OpenVinoDecoder
from icd_lib.decoding.stateful import constant_bytes, stateful_graph
from icd_lib.errors import ResourceError, TransformError
from tests.tiny_decoders import tiny_decoder

SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2}
NAME = "model.layers.1.mlp.down_proj.weight"


def grouped(shape=(64, 128), group=32, bits=4, whole=True, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = shape
    scales = rng.uniform(0.01, 0.02, (rows, columns // group)).astype(np.float32)
    zeros = rng.integers(0, 2**bits, scales.shape).astype(np.float32) + (0.0 if whole else 0.25)
    return Grouped(rng.integers(0, 2**bits, shape).astype(np.uint8), scales, zeros, bits)


def test_the_weight_is_code_minus_zero_times_scale():
    one = Grouped(np.array([[1, 3, 0, 15]], np.uint8), np.array([[0.5, 2.0]]), np.array([[1.0, 8.0]]), 4)
    assert one.group == 2 and one.weight().tolist() == [[0.0, 1.0, -16.0, 14.0]]


@pytest.mark.parametrize("change", [{"bits": 5}, {"bits": 3, "codes": 9}, {"scales": 3}])
def test_codes_that_do_not_fit_are_refused(change):
    codes = np.full((2, 8), change.get("codes", 1), np.uint8)
    groups = np.ones((2, change.get("scales", 2)), np.float32)
    with pytest.raises(TransformError):
        Grouped(codes, groups, groups, change.get("bits", 4))


@pytest.mark.wide
@pytest.mark.parametrize("bits", [pytest.param(3, marks=pytest.mark.slow), 4, pytest.param(8, marks=pytest.mark.slow)])
@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("whole", [True, False], ids=["whole zeros", "zeros between"])
def test_a_packed_graph_computes_what_its_weights_say(bits, group, whole):
    try:
        FP32.check()
    except ResourceError as error:
        pytest.skip(error.args[0])
    model = tiny_decoder(dtype=torch.float32, spread=0.1, **SIZES)
    codes = grouped(group=group, bits=bits, whole=whole)
    graph = stateful_graph(model)
    before = constant_bytes(graph)
    pack_weights(graph, {NAME: codes})
    extra = codes.scales.nbytes + (0 if whole else codes.zeros.nbytes)
    packed = 128 * 64 if bits == 8 else 128 * 64 // 2
    assert constant_bytes(graph) <= before - 4 * 128 * 64 + packed + extra + codes.zeros.size
    with torch.no_grad():
        model.get_parameter(NAME).copy_(torch.from_numpy(codes.weight()))
        expected = model(torch.tensor([[1, 5, 9]])).logits[:, -1].numpy()
    found = OpenVinoDecoder(FP32.open(graph, 1).create_infer_request()).prefill([[1, 5, 9]])
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.wide
def test_scales_take_two_bytes_where_float16_holds_them_and_stay_exact_elsewhere():
    held = grouped()
    halves = Grouped(held.codes, held.scales.astype(np.float16).astype(np.float32), held.zeros, held.bits)
    large = Grouped(held.codes, held.scales * 1e7, held.zeros, held.bits)
    sizes = []
    for codes, kind in ((held, np.float32), (halves, np.float16), (large, np.float32)):
        graph = stateful_graph(tiny_decoder(dtype=torch.float32, **SIZES))
        pack_weights(graph, {NAME: codes})
        scale = next(node for node in graph.get_ops() if node.get_friendly_name() == PREFIX + f"{NAME}/scale").data
        assert scale.dtype == kind and np.array_equal(scale.squeeze(-1).astype(np.float32), codes.scales)
        sizes.append(constant_bytes(graph))
    assert sizes[0] - sizes[1] == held.scales.nbytes // 2 and sizes[2] == sizes[0]


@pytest.mark.wide
def test_a_name_that_the_graph_does_not_have_is_refused():
    graph = stateful_graph(tiny_decoder(dtype=torch.float32, **SIZES))
    with pytest.raises(TransformError, match="None where model.layers.7"):
        pack_weights(graph, {"model.layers.7.mlp.down_proj.weight": grouped()})
    with pytest.raises(TransformError, match=r"\(64, 128\) where"):
        pack_weights(graph, {NAME: grouped((32, 128))})
