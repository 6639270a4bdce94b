"""Bits under a budget: against all combinations."""

import itertools

import numpy as np
import pytest

from icd_lib.errors import TransformError
from icd_lib.transforms.weights.allocate import MOST_UNITS, Choice, allocate


def instance(seed, matrices=5):
    generator = np.random.default_rng(seed)
    found = {}
    for number in range(matrices):
        size = int(generator.integers(1, 9)) * 24
        losses = np.sort(generator.random(3))[::-1]
        found[f"m{number}"] = [Choice(b, size * b // 8, float(v)) for b, v in zip((3, 4, 8), losses, strict=True)]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_best_of_all_combinations(seed):
    choices = instance(seed)
    smallest = sum(items[0].bytes for items in choices.values())
    largest = sum(items[-1].bytes for items in choices.values())
    for budget in np.linspace(smallest, largest, 7).astype(int):
        found = allocate(choices, int(budget))
        assert list(found) == list(choices) and sum(item.bytes for item in found.values()) <= budget
        every = itertools.product(*choices.values())
        best = min(sum(i.loss for i in tried) for tried in every if sum(i.bytes for i in tried) <= budget)
        assert sum(item.loss for item in found.values()) == pytest.approx(best)


def test_sizes_without_a_common_divisor_keep_the_budget():
    choices = {f"m{n}": [Choice(4, 100_003 + n, 2.0), Choice(8, 200_003 + 7 * n, 1.0)] for n in range(40)}
    budget = 40 * 150_500
    assert budget > MOST_UNITS
    found = allocate(choices, budget)
    assert sum(item.bytes for item in found.values()) <= budget
    assert sum(item.bits == 8 for item in found.values()) in (19, 20)


def test_a_budget_below_the_smallest_choices():
    with pytest.raises(
        TransformError, match="takes 30 bytes together, and the budget is 29; raise quantization.mean_bits"
    ):
        allocate({"a": [Choice(4, 30, 0.0)]}, 29)
