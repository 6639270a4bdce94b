import itertools

import numpy as np
import pytest
import torch
from torch import nn

from icd_lib.transforms.sparsity.obs import Moments, affine, eliminate, refit, restrict


def instance(columns=6, outputs=3, tokens=40, seed=0):
    """Inputs, targets, the affine design [X | 1], its Gram matrix and some weights."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    X = torch.randn(tokens, columns, generator=generator, dtype=torch.float64) @ mix + 0.5
    T = torch.randn(tokens, outputs, generator=generator, dtype=torch.float64)
    design = torch.cat([X, torch.ones(tokens, 1, dtype=torch.float64)], 1)
    W = torch.randn(outputs, columns + 1, generator=generator, dtype=torch.float64)
    return X, T, design, design.T @ design, W


def least_squares(design, W, kept):
    """Best weights on the columns `kept` plus bias for the target design Wᵀ, and the squared error, by lstsq."""
    part = design[:, [*kept, design.shape[1] - 1]]
    target = design @ W.T
    V = torch.linalg.lstsq(part, target).solution
    return V.T, float((part @ V - target).square().sum())


@pytest.mark.parametrize(("group", "columns"), [(1, 6), (2, 8), (3, 9)])
@pytest.mark.parametrize("seed", [0, 1])
def test_elimination_against_brute_force(group, columns, seed):
    _, _, design, gram, W = instance(columns, seed=seed)
    groups = columns // group
    path = eliminate(gram, W, group, groups)
    assert sorted(path.order) == list(range(groups))
    assert path.loss[0] == 0.0
    left = set(range(groups))

    def error_without(removed):
        kept = sorted(left - {removed})
        return least_squares(design, W, [g * group + i for g in kept for i in range(group)])[1]

    for chosen, loss in zip(path.order, path.loss[1:], strict=True):
        errors = {g: error_without(g) for g in left}
        assert chosen == min(errors, key=errors.get)
        assert loss == pytest.approx(errors[chosen], rel=1e-8)
        left.remove(chosen)
    assert (np.diff(path.loss) >= 0).all()


def test_groups_of_one_are_single_columns():
    _, _, _, gram, W = instance(7, seed=3)
    single = eliminate(gram, W, 1, 6)
    # Pairs of which one half is almost silent: the same problem through the grouped branch.
    silent = torch.zeros(3, 15, dtype=torch.float64)
    wide = torch.eye(15, dtype=torch.float64)
    places = torch.tensor([0, 2, 4, 6, 8, 10, 12, 14])
    silent[:, places] = W
    wide[places[:, None], places] = gram
    paired = eliminate(wide, silent, 2, 6)
    assert paired.order == single.order
    assert paired.loss == pytest.approx(single.loss, rel=1e-9)


def test_ties_fall_to_the_lower_index():
    gram, W = torch.eye(7, dtype=torch.float64), torch.ones(2, 7, dtype=torch.float64)
    assert eliminate(gram, W, 1, 6).order == [0, 1, 2, 3, 4, 5]
    assert eliminate(gram, W, 2, 3).order == [0, 1, 2]
    assert eliminate(gram, W, 1, 3).loss == pytest.approx([0, 2, 4, 6])


def test_inputs_are_not_changed():
    _, _, _, gram, W = instance()
    before = gram.clone(), W.clone()
    eliminate(gram, W, 1, 4)
    eliminate(gram, W, 3, 1)
    assert torch.equal(gram, before[0])
    assert torch.equal(W, before[1])


def test_alive_is_what_the_first_removals_left():
    _, _, _, gram, W = instance()
    path = eliminate(gram, W, 1, 5)
    assert path.alive(6, 6).all()
    assert path.alive(6, 4).nonzero()[:, 0].tolist() == sorted(set(range(6)) - set(path.order[:2]))


def test_restrict_is_least_squares_on_the_columns():
    _, _, design, gram, W = instance()
    for count in (1, 3, 5):
        for kept in itertools.combinations(range(6), count):
            wanted, _ = least_squares(design, W, kept)
            assert torch.allclose(restrict(gram, W, torch.tensor(kept)), wanted, atol=1e-8)


def test_restrict_to_everything_changes_nothing():
    _, _, _, gram, W = instance()
    assert torch.allclose(restrict(gram, W, torch.arange(6)), W, atol=1e-9)


def moments_of(X, T, bias=True):
    moments = Moments.empty(X.shape[1], T.shape[1], bias)
    for rows in (slice(0, 15), slice(15, None)):
        moments.update(X[rows], T[rows])
    return moments


def test_refit_without_ridge_is_least_squares():
    X, T, design, _, W = instance()
    wanted = torch.linalg.lstsq(design, T).solution.T
    assert torch.allclose(refit(moments_of(X, T), W, 1e-13), wanted, atol=1e-7)


def test_refit_with_an_endless_ridge_keeps_the_weights():
    X, T, _, _, W = instance()
    assert torch.allclose(refit(moments_of(X, T), W, 1e12), W, atol=1e-9)


def test_refit_is_the_optimum_of_its_objective():
    X, T, design, gram, W = instance()
    weight = 0.1 * gram.diagonal().mean()
    V = refit(moments_of(X, T), W, 0.1).requires_grad_(True)
    loss = (design @ V.T - T).square().sum() + weight * (V - W).square().sum()
    (slope,) = torch.autograd.grad(loss, V)
    assert float(slope.abs().max()) < 1e-9 * loss.item()


def test_moments_in_batches_equal_one_computation():
    X, T, design, gram, _ = instance(tokens=50)
    streamed = Moments.empty(6, 3)
    for inputs, targets in zip(X.split(7), T.split(7), strict=True):
        streamed.update(inputs, targets)
    assert torch.allclose(streamed.gram, gram, rtol=1e-12)
    assert torch.allclose(streamed.cross, T.T @ design, rtol=1e-10, atol=1e-12)
    assert streamed.tokens == 50
    assert streamed.energy == pytest.approx(float((T - T.mean(0)).square().sum()), rel=1e-12)


def test_damping_adds_to_the_diagonal_only():
    X, T, _, gram, _ = instance()
    added = moments_of(X, T).damped(0.5) - gram
    assert torch.allclose(added, 0.5 * gram.diagonal().mean() * torch.eye(7, dtype=torch.float64))
    assert torch.equal(moments_of(X, T).damped(0.0), moments_of(X, T).gram)


def test_affine_with_and_without_bias():
    linear = nn.Linear(3, 2)
    assert affine(linear).dtype == torch.float64
    assert torch.equal(affine(linear)[:, -1].float(), linear.bias)
    assert torch.equal(affine(nn.Linear(3, 2, bias=False))[:, -1], torch.zeros(2, dtype=torch.float64))


def test_without_a_bias_the_fit_is_least_squares_through_the_origin():
    X, T, *_ = instance()
    nothing = torch.zeros(3, 7, dtype=torch.float64)
    fitted = refit(moments_of(X, T, bias=False), nothing, 1e-12)
    assert torch.allclose(fitted[:, :-1].T, torch.linalg.lstsq(X, T).solution, atol=1e-6)
    assert not fitted[:, -1].any()
    assert refit(moments_of(X, T), nothing, 1e-12)[:, -1].abs().max() > 1e-3


def test_moments_at_columns_are_those_of_the_columns():
    X, T, *_ = instance()
    columns = torch.tensor([4, 0, 2])
    for bias in (True, False):
        part, whole = moments_of(X[:, columns], T, bias), moments_of(X, T, bias).at(columns)
        assert torch.allclose(part.gram, whole.gram) and torch.allclose(part.cross, whole.cross)
        assert part.energy == pytest.approx(whole.energy) and whole.tokens == part.tokens == 40
