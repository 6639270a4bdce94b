"""Rounding in groups: against a slow reference, against nearest points, in any order, and what is refused."""

import numpy as np
import pytest
import torch

from icd_lib.errors import TransformError
from icd_lib.transforms.weights.gptq import DAMPING, inverse_root, relative_error, round_in_groups
from icd_lib.transforms.weights.grids import SHRUNK, Spec, find_scales, nearest
from tests.tiny_problems import three_cycle

N, OUT, TOKENS = 48, 10, 400


def problem(seed=0, spread=3.0):
    """Weights, and inputs of few directions whose columns are active to different degrees."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(N // 4, N, generator=generator, dtype=torch.float64)
    x = torch.randn(TOKENS, N // 4, generator=generator, dtype=torch.float64) @ mixing
    x = (x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)) * torch.exp(
        spread * torch.rand(N, generator=generator, dtype=torch.float64)
    )
    return torch.randn(OUT, N, generator=generator, dtype=torch.float64), x


def reference(weights, gram, spec):
    """GPTQ as its paper writes it: column after column, the inverse downdated by each."""
    left, held = weights.clone(), torch.empty_like(weights)
    gram = gram + DAMPING * gram.diagonal().mean() * torch.eye(N, dtype=torch.float64)
    inverse, group = torch.linalg.inv(gram), spec.group
    importance = 1 / inverse_root(gram, 0.0).diagonal().square()
    for column in range(N):
        if column % group == 0:
            scale, zero = find_scales(left[:, column : column + group], spec, importance[column : column + group])
        held[:, column] = nearest(left[:, column], scale, zero, spec)
        error = (left[:, column] - held[:, column]) / inverse[column, column]
        left[:, column:] -= error[:, None] * inverse[column, column:]
        inverse = inverse - inverse[:, column : column + 1] @ inverse[column : column + 1] / inverse[column, column]
    return held


def lost(weights, values, x):
    return float(((values - weights) @ x.T).square().sum())


@pytest.mark.parametrize(
    "spec", [Spec(4, 16), Spec(3, 8), Spec(4, 12, symmetric=True), Spec(8, 48), Spec(4, 16, searched=False)]
)
def test_it_is_gptq(spec):
    weights, x = problem()
    found = round_in_groups(weights, x.T @ x, spec)
    assert torch.allclose(found.values, reference(weights, x.T @ x, spec), atol=1e-9)


@pytest.mark.parametrize("group", [96, 160])
def test_groups_that_are_no_whole_blocks(group):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(900, 480, generator=generator, dtype=torch.float64) @ torch.randn(
        480, 480, generator=generator, dtype=torch.float64
    )
    weights = torch.randn(3, 480, generator=generator, dtype=torch.float64)
    found, plain = (round_in_groups(weights, gram, Spec(4, group)) for gram in (x.T @ x, None))
    assert lost(weights, found.values, x) < 0.6 * lost(weights, plain.values, x)


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_it_loses_less_than_nearest_points_where_inputs_are_correlated(bits, symmetric):
    spec = Spec(bits, 16, symmetric)
    for seed in range(4):
        weights, x = problem(seed)
        gram = x.T @ x
        found, plain = (round_in_groups(weights, given, spec) for given in (gram, None))
        assert lost(weights, found.values, x) < 0.5 * lost(weights, plain.values, x)
        expected = lost(weights, found.values, x) / float((weights @ x.T).square().sum())
        assert relative_error(weights, found.values, gram) == pytest.approx(expected, rel=1e-6)


def test_the_factor_is_that_of_the_damped_inverse():
    gram = problem(0)[1].T @ problem(0)[1]
    root = inverse_root(gram)
    damped = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    assert torch.equal(root, root.triu()) and bool((root.diagonal() > 0).all())
    torch.testing.assert_close(root.T @ root, torch.linalg.inv(damped))


@pytest.mark.parametrize("searched", [False, True])
def test_it_is_nearest_where_inputs_are_not(searched):
    weights, _ = problem()
    diagonal = torch.ones(N) if searched else torch.rand(N, generator=torch.Generator().manual_seed(2)) + 0.1
    found, plain = (
        round_in_groups(weights, gram, Spec(4, 16, searched=searched)) for gram in (torch.diag(diagonal.double()), None)
    )
    assert torch.equal(found.values, plain.values) and torch.equal(found.grid.scale, plain.grid.scale)


def test_the_most_active_first_loses_least():
    errors = {"stored": [], "descending": [], "ascending": []}
    for seed in range(6):
        weights, x = problem(seed)
        gram = x.T @ x
        down = torch.argsort(gram.diagonal(), descending=True)
        for name, order in (("stored", None), ("descending", down), ("ascending", down.flip(0))):
            errors[name].append(lost(weights, round_in_groups(weights, gram, Spec(4, 16), order).values, x))
    stored, descending, ascending = (np.mean(errors[name]) for name in errors)
    assert descending < 0.8 * stored < 0.8 * ascending


@pytest.mark.parametrize("compensate", [True, False])
def test_folded_then_rounded_is_rounded_in_that_order_bit_for_bit(compensate):
    weights, x = problem()
    gram = x.T @ x
    for perm in (torch.from_numpy(three_cycle(N)), torch.randperm(N, generator=torch.Generator().manual_seed(7))):
        folded = round_in_groups(weights[:, perm], gram[perm][:, perm] if compensate else None, Spec(4, 16))
        gathered = round_in_groups(weights, gram if compensate else None, Spec(4, 16), perm)
        assert torch.equal(folded.values, gathered.values[:, perm])
        assert torch.equal(folded.grid.scale, gathered.grid.scale) and torch.equal(folded.grid.zero, gathered.grid.zero)
        assert torch.equal(gathered.grid.group[perm], folded.grid.group)
        assert folded.grid.is_contiguous and not gathered.grid.is_contiguous


@pytest.mark.parametrize("spec", [Spec(4, 16), Spec(4, 16, symmetric=True), Spec(3, 16, half=False), Spec(8, None)])
def test_values_lie_on_the_grid_that_is_kept(spec):
    weights, x = problem()
    found = round_in_groups(weights, x.T @ x, spec)
    codes = found.grid.codes_of(found.values)
    assert torch.equal(found.grid.weight_of(codes), found.values)
    held = found.grid.scale.to(torch.float16 if spec.half else torch.float32).double()
    assert torch.equal(held, found.grid.scale)
    if spec.half:
        assert torch.equal(found.values.float().double(), found.values), "float32 holds scale × steps exactly"


def test_the_scale_of_a_group_is_that_of_its_values():
    values = torch.tensor([[0.0, 1.5, 3.0], [-3.0, 0.0, 0.75], [0.0, 0.0, 0.0]], dtype=torch.float64)
    scale, zero = find_scales(values, Spec(4, 3, searched=False))
    assert scale.tolist() == [pytest.approx(0.2, rel=1e-3), 0.25, 1.0] and zero.tolist() == [0, 12, 0]
    scale, zero = find_scales(values, Spec(4, 3, symmetric=True, searched=False))
    assert scale.abs().tolist() == [0.375, 0.375, 1.0] and zero.tolist() == [8, 8, 8]
    assert nearest(values[1], scale[1], zero[1], Spec(4, 3, symmetric=True)).tolist() == [-3.0, 0.0, 0.75]


def test_the_range_that_is_kept_loses_least_of_those_tried():
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(20, 64, generator=generator, dtype=torch.float64) ** 3
    importance = torch.rand(64, generator=generator, dtype=torch.float64)
    spec = Spec(3, 64)
    scale, zero = find_scales(values, spec, importance)
    found = (nearest(values, scale[:, None], zero[:, None], spec) - values).square() @ importance
    tried = []
    for share in (1.0, *SHRUNK):
        ends = [end * share for end in (values.amin(1).clamp(max=0), values.amax(1).clamp(min=0))]
        step = ((ends[1] - ends[0]) / 7).half().double()
        middle = (-ends[0] / step).round().clamp(0, 7)
        tried.append((nearest(values, step[:, None], middle[:, None], spec) - values).square() @ importance)
    assert torch.equal(found, torch.stack(tried).amin(0)) and bool((found < tried[0]).any())


def test_dead_columns_and_dead_inputs():
    weights, x = problem()
    x[:, [0, 5]], weights[:, 7] = 0.0, 0.0
    found = round_in_groups(weights, x.T @ x, Spec(4, 16))
    assert bool(found.values.isfinite().all()) and lost(weights, found.values, x) < 0.01 * float(
        (weights @ x.T).square().sum()
    )
    still = round_in_groups(weights, torch.zeros(N, N, dtype=torch.float64), Spec(4, 16, searched=False))
    assert torch.equal(still.values, round_in_groups(weights, None, Spec(4, 16, searched=False)).values)


def test_what_cannot_be_rounded():
    weights, x = problem()
    gram = x.T @ x
    bad = gram.clone()
    bad[3, 3] = torch.nan
    with pytest.raises(TransformError, match="second moments of 'down' are not finite"):
        round_in_groups(weights, bad, Spec(4, 16), name="down")
    with pytest.raises(TransformError, match="weights of 'down' are not finite"):
        round_in_groups(weights / 0, gram, Spec(4, 16), name="down")
    with pytest.raises(TransformError, match="48 columns of 'down' do not fall into groups of 32"):
        round_in_groups(weights, gram, Spec(4, 32), name="down")
    with pytest.raises(TransformError, match="larger than float16 holds"):
        round_in_groups(weights * 1e7, gram, Spec(4, 16))
