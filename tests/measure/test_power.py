"""Power: how many rounds the noise asks for, when more are taken, and what does not depend on the result."""

import numpy as np
import pytest

from icd_lib.measure import power
from icd_lib.measure.power import detectable, measure_until_clear, power_analysis, rounds_needed
from icd_lib.measure.statistics import paired_ratio

SETTINGS = {"seed": 0, "resamples": 400}


def noisy(rounds: int, spread: float, factor: float = 1.0, seed: int = 0) -> np.ndarray:
    return factor * np.random.default_rng(seed).lognormal(0, spread, rounds)


def test_the_detectable_change_is_found_four_times_in_five():
    """By simulation: at the detectable change about 80 % of the intervals exclude zero."""
    rounds, spread = 60, 0.05
    ratio = paired_ratio(noisy(rounds, spread), noisy(rounds, spread, seed=1), **SETTINGS)
    effect = detectable(ratio)
    found = 0
    for trial in range(100):
        a, b = noisy(rounds, spread, 1 + effect, seed=10 + trial), noisy(rounds, spread, seed=1000 + trial)
        low, high = paired_ratio(a, b, **SETTINGS)["ci95"]
        found += not low <= 0 <= high
    assert 60 <= found <= 96


def test_rounds_grow_with_the_square_of_the_precision():
    ratio = {"ci95": [-0.02, 0.02], "n": 40}
    assert rounds_needed(ratio, detectable(ratio)) == 40
    assert rounds_needed(ratio, detectable(ratio) / 2) == 160


def test_the_noisiest_pair_decides_and_a_shift_changes_nothing():
    samples = {"dense": noisy(40, 0.01), "linear": noisy(40, 0.01, seed=1), "iterative": noisy(40, 0.2, seed=2)}
    pairs = [("iterative", "dense"), ("iterative", "linear"), ("linear", "dense")]
    found = power_analysis(samples, pairs, 0.02, **SETTINGS)
    assert found["needed"] > 40 and max(found["detectable"], key=found["detectable"].get) != "linear vs dense"
    slower = power_analysis(
        samples | {"dense": samples["dense"] * 2, "linear": samples["linear"] * 2}, pairs, 0.02, **SETTINGS
    )
    assert slower["detectable"]["linear vs dense"] == pytest.approx(found["detectable"]["linear vs dense"])


@pytest.mark.parametrize(("spread", "cap", "expected"), [(0.0001, 50, 10), (0.5, 50, 50), (0.5, 10, 10)])
def test_more_rounds_are_taken_only_where_the_noise_asks_and_up_to_the_cap(monkeypatch, spread, cap, expected):
    taken = []

    def pretend(arms, *, repeats, warmup, seed, progress, settle_ms, time_round):
        taken.append((repeats, warmup, seed))
        assert settle_ms == 7 and time_round is None
        return {arm: noisy(repeats, spread, seed=seed + i) for i, arm in enumerate(arms)}

    monkeypatch.setattr(power, "measure_interleaved", pretend)
    arms = {"dense": None, "iterative": None}
    pairs = [("iterative", "dense"), ("iterative", "oneshot")]
    samples, found = measure_until_clear(
        arms, pairs, repeats=10, max_repeats=cap, effect=0.02, warmup=3, seed=5, resamples=200, settle_ms=7
    )
    assert {len(ms) for ms in samples.values()} == {expected} and found["rounds"] == expected
    assert found["planned"] == 10 and found["cap"] == cap and list(found["detectable"]) == ["iterative vs dense"]
    assert taken[0] == (10, 3, 5) and len({seed for _, _, seed in taken}) == len(taken)
