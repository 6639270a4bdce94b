"""OpenVINO: the precision that was asked for, and no int8 without text to calibrate on."""

import pytest
import torch

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.runtimes.openvino import BF16, FP32, INT8
from tests.tiny_encoders import batch, tiny_bert

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


def test_int8_needs_text(tmp_path):
    try:
        INT8.check()
    except ResourceError as error:
        pytest.skip(error.args[0])
    with pytest.raises(MeasureError, match="openvino_int8 needs calibration batches"):
        INT8.prepare(tiny_bert(), batch(1, 5), workdir=tmp_path)
    assert not list(tmp_path.iterdir())
