import pytest
import torch

from icd_lib.kernels import causal_conv1d, causal_conv1d_ref, causal_conv1d_step

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-2}


def make_inputs(sequences=2, width=70, length=9, taps=4, dtype=torch.float32, initial=False):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    x = normal(sequences, length, 2 * width)[..., width:].transpose(1, 2)
    return x, normal(width, taps), normal(width), normal(sequences, width, taps - 1) if initial else None


def relative_error(got, wanted):
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("length", "taps"), [(1, 4), (2, 4), (3, 1), (255, 3), (9, 7)])
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("initial", [True, False])
def test_it_agrees_with_the_reference(dtype, length, taps, activation, initial):
    x, weight, bias, before = make_inputs(length=length, taps=taps, dtype=dtype, initial=initial)
    exact = [None if t is None else t.double() for t in (x, weight, bias, before)]
    wanted = causal_conv1d_ref(*exact[:3], activation, exact[3])
    got = causal_conv1d(x, weight, bias, activation, before)
    assert got.dtype == dtype and relative_error(got, wanted) <= TOLERANCE[dtype]
    without = causal_conv1d(x.contiguous(), weight, None, activation, before)
    assert relative_error(without, causal_conv1d_ref(*exact[:2], None, activation, exact[3])) <= TOLERANCE[dtype]


@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_single_steps_make_the_whole(dtype, activation):
    x, weight, bias, before = make_inputs(dtype=dtype, initial=True)
    whole = causal_conv1d(x, weight, bias, activation, before)
    recent = torch.nn.functional.pad(before, (1, 0), value=float("nan"))  # the oldest of K inputs is read no more
    steps = [causal_conv1d_step(recent, x[..., t], weight, bias, activation) for t in range(x.shape[-1])]
    assert relative_error(torch.stack(steps, -1), whole) <= TOLERANCE[dtype]
    assert torch.equal(recent, x[..., -4:])


@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("initial", [True, False])
def test_gradcheck(activation, initial):
    x, weight, bias, before = make_inputs(width=3, length=5, dtype=torch.float64, initial=initial)
    leaves = tuple(tensor.clone().requires_grad_() for tensor in (x, weight, bias))
    assert torch.autograd.gradcheck(lambda *t: causal_conv1d(*t, activation, before), leaves)


def test_a_gradient_reaches_the_inputs_before():
    x, weight, bias, before = make_inputs(width=3, length=5, dtype=torch.float64, initial=True)
    before.requires_grad_()
    assert torch.autograd.gradcheck(lambda b: causal_conv1d(x, weight, bias, "silu", b), (before,))


def test_the_same_bytes_for_any_number_of_threads():
    x, weight, bias, _ = make_inputs(width=200, length=500)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaves = tuple(tensor.clone().requires_grad_() for tensor in (x, weight, bias))
            out = causal_conv1d(*leaves, "silu")
            found.append(
                [t.detach().numpy().tobytes() for t in (out, *torch.autograd.grad(out.square().sum(), leaves))]
            )
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]
