"""OpenVINO: the precision that was asked for, and no int8 without text to calibrate on."""

import pytest
import torch

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.models.grouped import GroupedLinear
from icd_lib.models.quantized import replace_linear
from icd_lib.runtimes.onnxruntime import INT8 as ONNX_INT8
from icd_lib.runtimes.openvino import BF16, FP32, INT8
from icd_lib.transforms.weights.gptq import round_in_groups
from icd_lib.transforms.weights.grids import Spec
from tests.tiny_encoders import batch, tiny_bert
from tests.tiny_grouped import decoder

pytestmark = pytest.mark.wide


def test_fp32_is_fp32_and_bf16_is_not(tmp_path):
    model, inputs = tiny_bert(), batch(4, 16)
    try:
        exact, rounded = (row.prepare(model, inputs, workdir=tmp_path / row.name).run(inputs) for row in (FP32, BF16))
    except ResourceError as error:
        pytest.skip(error.args[0])
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state.numpy()
    assert abs(exact - expected).max() < 1e-5 < abs(rounded - expected).max()


def test_a_shape_that_it_is_warmed_for_gets_a_graph_of_its_own(tmp_path):
    model, inputs, others = tiny_bert(), batch(4, 16), batch(2, 9)
    try:
        prepared = FP32.prepare(model, inputs, workdir=tmp_path)
    except ResourceError as error:
        pytest.skip(error.args[0])
    before = prepared.run(inputs)
    prepared.warm(inputs)
    prepared.warm(inputs)
    (fitted,) = prepared.of_shape.values()
    assert {tuple(port.shape) for port in fitted.model_inputs} == {(4, 16)}
    assert all(port.partial_shape.is_dynamic for port in prepared.request.model_inputs)
    assert abs(prepared.run(inputs) - before).max() < 1e-5
    with torch.no_grad():
        expected = model(**others).last_hidden_state.numpy()
    assert abs(prepared.run(others) - expected).max() < 1e-5

    def refused(network):
        raise RuntimeError("no such kernel")

    prepared.compiled = refused
    with pytest.raises(ResourceError, match=r"cannot compile for inputs of \[2, 9\]: .*no such kernel"):
        prepared.warm(others)
    assert list(prepared.of_shape) == [(4, 16)]
    prepared.close()
    assert not prepared.of_shape


def test_weights_in_groups_are_not_int8_to_a_runtime():
    """They say nothing of inputs, whose ranges a runtime's int8 takes from text."""
    model = decoder()
    place = "layers.0.mlp.up_proj"
    linear = model.model.get_submodule(place)
    grid = round_in_groups(linear.weight.detach(), None, Spec(8, 16)).grid
    replace_linear(model.model, place, GroupedLinear.of(linear, grid))
    for row in (INT8, ONNX_INT8):
        with pytest.raises(MeasureError, match="needs calibration batches"):
            row.check_calibration(model, None)


def test_int8_needs_text(tmp_path):
    try:
        INT8.check()
    except ResourceError as error:
        pytest.skip(error.args[0])
    with pytest.raises(MeasureError, match="openvino_int8 needs calibration batches"):
        INT8.prepare(tiny_bert(), batch(1, 5), workdir=tmp_path)
    assert not list(tmp_path.iterdir())
