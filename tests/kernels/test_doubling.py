"""The scan in log2(L) steps: what the reference gives, at lengths that are powers of two and that are not."""

import pytest
import torch

from icd_lib.kernels import use_fast_scan
from icd_lib.kernels.doubling import selective_scan_doubling, selective_scan_recomputed
from icd_lib.kernels.mixer import DoublingMambaMixer, doubling_scan
from icd_lib.kernels.reference import selective_scan_ref
from tests.tiny_mambas import tiny_mamba, tokens


def arguments(length, dtype, strong=1.0):
    generator = torch.Generator().manual_seed(length)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    u, delta, z = draw(2, 5, length), strong * draw(2, 5, length), draw(2, 5, length)
    return u, delta, -draw(5, 3).exp(), draw(2, 3, length), draw(2, 3, length), draw(5), z, draw(5), True


@pytest.mark.parametrize("length", [1, 2, 3, 8, 13])
def test_it_is_the_recurrence(length):
    given = arguments(length, torch.float64)
    assert torch.allclose(selective_scan_doubling(*given), selective_scan_ref(*given), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("length", [1, 5, 8])
def test_it_goes_on_from_a_state_and_gives_the_last_with_gradients(length):
    given = arguments(length, torch.float64)
    state = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for scan in (selective_scan_ref, selective_scan_recomputed):
        u, first = given[0].clone().requires_grad_(), state.clone().requires_grad_()
        out, last = scan(u, *given[1:], first, True)
        (out.square().sum() + last.sum()).backward()
        found.append((out, last, u.grad, first.grad))
    for wanted, got in zip(*found, strict=True):
        assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-12)


def test_decays_that_multiply_to_nothing_cost_no_digits():
    given = arguments(64, torch.float32, strong=50.0)
    exact = selective_scan_ref(*(item.double() if torch.is_tensor(item) else item for item in given))
    found = selective_scan_doubling(*given)
    assert found.dtype == torch.float32 and torch.isfinite(found).all()
    assert (found - exact).norm() / exact.norm() < 1e-6


@pytest.mark.parametrize(
    ("prepare", "apart"),
    [(lambda model: model, 1e-5), (use_fast_scan, 1e-12)],  # the stock scan of a float64 model computes in float32
    ids=["stock", "fast"],
)
def test_a_model_is_the_same_within_and_itself_afterwards(prepare, apart):
    model, ids = prepare(tiny_mamba("backbone")), tokens(2, 13)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    kinds = [type(module) for module in model.modules()]
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, use_cache=False).last_hidden_state
        with doubling_scan(model):
            assert any(isinstance(module, DoublingMambaMixer) for module in model.modules())
            found = model(ids, attention_mask=mask, use_cache=False).last_hidden_state
    assert (found - expected).norm() < apart * expected.norm()
    assert [type(module) for module in model.modules()] == kinds
