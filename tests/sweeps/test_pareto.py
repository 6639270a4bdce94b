"""The frontier against its definition."""

import numpy as np
import pytest

from icd_lib.sweeps.pareto import frontier


def by_definition(costs):
    def beats(one, other):
        return one[0] <= other[0] and one[1] <= other[1] and one != other

    return [not any(beats(other, pair) for other in costs) for pair in costs]


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_nothing_beats(seed):
    rng = np.random.default_rng(seed)
    costs = [tuple(map(float, pair)) for pair in rng.integers(0, 6, (rng.integers(1, 25), 2))]  # with ties
    assert frontier(costs) == by_definition(costs)


def test_of_none_there_is_none_and_what_is_no_number_is_no_point():
    assert frontier([]) == []
    with pytest.raises(ValueError, match="not finite"):
        frontier([(1.0, float("nan"))])
