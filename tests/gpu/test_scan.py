"""The scan's kernels on a CUDA device, against the reference in double precision."""

import copy

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from icd_lib.kernels import causal_conv1d_step, cuda_package, selective_scan, selective_scan_step, use_fast_scan
from tests.scan_cases import TOLERANCE, assert_agrees, make_inputs, relative_error

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """cuDNN rounds the inputs of fp32 convolutions to TF32 unless it is told not to."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


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


@pytest.mark.parametrize("layout", ["rows", "columns", "sliced"])
@pytest.mark.parametrize("width", [1, 33, 1536])
def test_bf16_in_any_layout_is_as_close_as_bf16_can_be(layout, width):
    inputs = make_inputs(
        sequences=3, width=width, states=16, length=40, dtype=torch.bfloat16, layout=layout, device="cuda"
    )
    assert_agrees(inputs, TOLERANCE[torch.bfloat16], backend="triton")


def test_without_gradients_the_device_s_own_kernel_is_chosen():
    inputs = make_inputs(device="cuda")
    with torch.no_grad():
        chosen = selective_scan(**inputs)
    assert torch.equal(chosen, selective_scan(**inputs, backend="triton"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_decode_step_of_the_convolution_is_that_of_the_cpu(dtype):
    generator = torch.Generator().manual_seed(0)
    recent, x = torch.randn(2, 37, 4, generator=generator), torch.randn(2, 37, generator=generator).to(dtype)
    weight, bias = torch.randn(37, 4, generator=generator), torch.randn(37, generator=generator)
    there = [tensor.cuda() for tensor in (recent, x, weight, bias)]
    wanted, got = (causal_conv1d_step(*arguments, "silu") for arguments in ((recent, x, weight, bias), there))
    assert got.is_cuda and relative_error(got.cpu(), wanted) <= TOLERANCE[dtype]
    assert relative_error(there[0].cpu(), recent) <= 1e-6


def small_mamba() -> MambaForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2, "state_size": 8}
    return MambaForCausalLM(MambaConfig(**sizes)).eval()


def test_a_mamba_with_the_fast_scan_is_the_stock_one_on_the_device():
    stock = small_mamba().cuda()
    fast = use_fast_scan(copy.deepcopy(stock))
    ids = torch.randint(0, 97, (2, 33), generator=torch.Generator().manual_seed(1)).cuda()
    with torch.no_grad():
        assert relative_error(fast(ids, use_cache=False).logits, stock(ids, use_cache=False).logits) <= 1e-5


def test_decoding_token_by_token_makes_the_whole():
    """With a cache of an older Transformers the stock step decodes, and must make the same whole."""
    model = use_fast_scan(small_mamba().cuda())
    ids = torch.randint(0, 97, (2, 12), generator=torch.Generator().manual_seed(1)).cuda()
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        step = model(ids[:, :6], use_cache=True)
        parts = [step.logits]
        for t in range(6, 12):
            step = model(ids[:, t : t + 1], cache_params=step.cache_params, use_cache=True)
            parts.append(step.logits)
    assert relative_error(torch.cat(parts, 1), whole) <= 1e-5
