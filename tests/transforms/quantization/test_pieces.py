"""Ranges, factors, rounding and the choice of columns: known values, plain slow versions, constant channels."""

import numpy as np
import pytest
import torch

from icd_lib.transforms.quantization.evening import Spread, even_factors
from icd_lib.transforms.quantization.outliers import widest
from icd_lib.transforms.quantization.ranges import input_grid, least_error_grid, row_steps
from icd_lib.transforms.quantization.rounding import round_compensated


@pytest.mark.parametrize(
    "low, high, wanted", [(0.5, 2.55, (0.01, 0)), (-2.55, -1.0, (0.01, 255)), (0.0, 0.0, (1.0, 0))]
)
def test_a_range_always_holds_zero(low, high, wanted):
    step, zero = input_grid(low, high)
    assert (step, zero) == (pytest.approx(wanted[0]), wanted[1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_range_that_is_none_is_a_grid_all_the_same(bad):
    assert input_grid(0.0, bad) == (1.0, 0)


def test_one_far_value_that_hardly_counts_is_cut():
    torch.manual_seed(0)
    values = torch.rand(500, 4)
    values[0, 3] = 3.0
    plain = input_grid(0.0, 3.0)[0]
    assert least_error_grid([values[:200], values[200:]], torch.tensor([1.0, 1.0, 1.0, 1e-3]))[0] < 0.6 * plain
    assert least_error_grid([values[:200], values[200:]], torch.tensor([1e-6, 1e-6, 1e-6, 1.0]))[0] > 0.9 * plain


def test_factors_make_channels_alike_and_leave_constant_ones_finite():
    torch.manual_seed(1)
    values = torch.randn(400, 5) * torch.tensor([1.0, 10.0, 0.1, 1.0, 0.0]) + torch.tensor([0.0, 40.0, 0.0, -3.0, 7.0])
    spread, weight = Spread.of([values]), torch.randn(6, 5)
    evened = (values - spread.middle) * even_factors(spread, weight, 1.0)
    reach = evened.abs().amax(0)
    assert torch.allclose(reach[:4], reach[0].expand(4), rtol=1e-4), "with exponent 1 all reach equally far"
    assert bool(evened.isfinite().all()) and float(reach[4]) == 0.0
    alike = even_factors(spread, weight, 0.0) / weight.abs().amax(0)
    assert torch.allclose(alike, alike[0].expand(5), rtol=1e-4), "with exponent 0 the weight's columns do"


def test_rows_of_zeros_have_a_step():
    assert row_steps(torch.zeros(2, 3)).tolist() == [1.0, 1.0]


def compensated_reference(weights, gram, free, step):
    """One column after the other, the rest solved anew every time."""
    order = sorted(range(len(gram)), key=lambda j: (bool(free[j]), -float(gram[j, j])))
    current, left = weights.clone(), list(order)
    for column in order:
        value = current[:, column].clone()
        rounded = value if free[column] else (value / step).round() * step
        left.remove(column)
        if left:
            index = torch.tensor(left)
            shift = torch.linalg.solve(gram[index][:, index], gram[index, column])
            current[:, index] += (value - rounded)[:, None] * shift
        current[:, column] = rounded
    return current


def test_rounding_with_compensation_equals_solving_the_rest_anew():
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(300, 90, generator=generator, dtype=torch.float64)
    inputs[:, 1:] += 0.8 * inputs[:, :-1]
    weights = torch.randn(4, 90, generator=generator, dtype=torch.float64)
    gram, free = inputs.T @ inputs, torch.zeros(90, dtype=torch.bool)
    free[[7, 89]] = True
    step = 0.25
    found = round_compensated(weights, gram, free, lambda values, column: (values / step).round() * step)
    assert torch.allclose(found, compensated_reference(weights, gram, free, step), atol=1e-9)
    on_grid = found[:, ~free] / step
    assert torch.allclose(on_grid, on_grid.round(), atol=1e-9)

    def lost(rounded):
        return float(((inputs @ (rounded - weights).T) ** 2).sum())

    nearest = torch.where(free, weights, (weights / step).round() * step)
    assert lost(found) < 0.7 * lost(nearest)


def test_whole_tiles_of_what_sticks_out():
    far = np.array([0.0, 5.0, 1.0, 1.0, 1.0, 1.0, 4.0, 1.0])
    assert np.flatnonzero(widest(far, 0.25)).tolist() == [1, 6]
    assert np.flatnonzero(widest(far, 0.25, granule=2)).tolist() == [0, 1, 6, 7]
    assert np.flatnonzero(widest(far, 0.01)).tolist() == [1], "at least one"
