"""The scan's kernels on a CUDA device, against the reference in double precision."""

import pytest

from icd_lib.kernels import cuda_package, selective_scan, selective_scan_step
from tests.scan_cases import TOLERANCE, assert_agrees, make_inputs, relative_error

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("length", [1, 2, 255, 1000])
def test_triton_on_the_device(dtype, length):
    assert_agrees(make_inputs(length=length, width=131, dtype=dtype, device="cuda"), TOLERANCE[dtype], backend="triton")


def test_single_steps_on_the_device_make_the_whole():
    inputs = make_inputs(length=5, states=16, device="cuda")
    whole, last = selective_scan(**inputs, return_last_state=True)
    state = inputs["initial_state"].clone()
    common = {name: inputs[name] for name in ("A", "D", "delta_bias", "delta_softplus")}
    for t in range(5):
        tokens = {name: inputs[name][..., t] for name in ("u", "delta", "B", "C", "z")}
        assert relative_error(selective_scan_step(state, **tokens, **common), whole[..., t]) <= 2e-6
    assert relative_error(state, last) <= 2e-6


def test_mamba_ssm_on_the_device_agrees():
    if not cuda_package.is_installed():
        pytest.skip("mamba_ssm is not installed")
    inputs = make_inputs(length=255, width=64, states=16, device="cuda") | {"initial_state": None}
    assert_agrees(inputs, 1e-5, backend="mamba_ssm")
