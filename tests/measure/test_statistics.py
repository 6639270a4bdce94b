"""Statistics against closed forms, identities and coverage on simulated samples."""

import numpy as np
import pytest
from scipy import stats

from icd_lib.errors import MeasureError
from icd_lib.measure.statistics import (
    bootstrap_ci,
    mean_ci,
    mean_difference,
    paired_difference,
    paired_ratio,
    paired_test,
    ratio_of_means,
    summarise,
)


def test_summary_of_a_known_sample():
    summary = summarise(np.arange(101.0))
    assert (summary["median"], summary["p50"], summary["p95"], summary["p99"], summary["n"]) == (50, 50, 95, 99, 101)
    assert summary["mean"] == 50 and summary["std"] == pytest.approx(np.arange(101.0).std(ddof=1))


def test_ratio_is_scale_free_exact_for_proportional_arms_and_flips_sign():
    base = np.random.default_rng(0).uniform(5, 9, 50)
    faster = paired_ratio(0.75 * base, base)
    assert faster["value"] == pytest.approx(-0.25) and faster["ci95"] == pytest.approx([-0.25, -0.25])
    assert paired_ratio(base, 0.75 * base)["value"] == pytest.approx(1 / 3)
    assert paired_ratio(base, base)["ci95"] == [0, 0]


def test_pairing_cancels_drift_that_hits_both_arms():
    rng = np.random.default_rng(1)
    drift = np.linspace(1, 3, 80)
    a, b = drift * 0.8 * rng.normal(1, 0.01, 80), drift * rng.normal(1, 0.01, 80)
    low, high = paired_ratio(a, b, seed=2)["ci95"]
    assert low < -0.2 < high and high - low < 0.05


def test_the_seed_fixes_the_interval():
    rng = np.random.default_rng(3)
    a, b = rng.uniform(1, 2, 40), rng.uniform(1, 2, 40)
    assert paired_ratio(a, b, seed=7) == paired_ratio(a, b, seed=7)
    assert paired_ratio(a, b, seed=7)["ci95"] != paired_ratio(a, b, seed=8)["ci95"]


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one():
    sample = np.random.default_rng(4).normal(10, 2, 400)
    low, high = bootstrap_ci(sample, lambda drawn: drawn.mean(axis=1), seed=0, block=1)
    half = 1.96 * sample.std() / 20
    assert [low, high] == pytest.approx([sample.mean() - half, sample.mean() + half], abs=0.15 * half)


def test_blocks_widen_the_interval_of_correlated_rounds():
    rng = np.random.default_rng(5)
    walk = np.repeat(rng.normal(size=40), 10)

    def mean(drawn):
        return drawn.mean(axis=1)

    single, blocks = (np.ptp(bootstrap_ci(walk, mean, block=block)) for block in (1, 10))
    assert blocks > 2 * single


def test_a_a_interval_covers_zero_about_as_often_as_it_says():
    rng = np.random.default_rng(6)
    covered = 0
    for trial in range(100):
        a, b = rng.lognormal(0, 0.1, (2, 60))
        low, high = paired_ratio(a, b, seed=trial, resamples=300)["ci95"]
        covered += low <= 0 <= high
    assert covered >= 86


def test_difference_without_clusters_is_the_textbook_standard_error():
    rng = np.random.default_rng(7)
    x, y = rng.random(500) < 0.7, rng.random(500) < 0.65
    result = paired_difference(x, y)
    d = x.astype(float) - y
    assert result["drop_pp"] == pytest.approx(100 * d.mean())
    assert result["se_pp"] == pytest.approx(100 * d.std(ddof=1) / np.sqrt(500))
    low, high = result["ci95"]
    assert (low + high) / 2 == pytest.approx(result["drop_pp"])
    assert (high - low) / 2 == pytest.approx(1.96 * result["se_pp"], rel=1e-4)


def test_copies_of_an_item_in_one_cluster_add_no_information():
    rng = np.random.default_rng(8)
    x, y = rng.random(300) < 0.7, rng.random(300) < 0.6
    once = paired_difference(x, y)
    copies = paired_difference(np.tile(x, 4), np.tile(y, 4), clusters=np.tile(np.arange(300), 4))
    assert copies["se_pp"] == pytest.approx(once["se_pp"]) and copies["n_clusters"] == 300 and copies["n"] == 1200


def test_equal_answers_drop_nothing():
    x = np.array([1, 0, 1, 1])
    assert paired_difference(x, x)["drop_pp"] == 0 and paired_difference(x, x)["se_pp"] == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: summarise([]), "at least one"),
        (lambda: summarise([1.0, float("nan")]), "value 1 is not finite"),
        (lambda: paired_ratio([1, 2], [1]), "2 and 1"),
        (lambda: paired_ratio([1, 0], [1, 1]), "positive"),
        (lambda: paired_difference([1], [0]), "two independent"),
        (lambda: paired_difference([1, 0], [0, 1], clusters=[1]), "one label per item"),
        (lambda: paired_difference([1, 0], [0, 1], clusters=[1, 1]), "two independent"),
    ],
)
def test_unusable_samples_are_refused(call, says):
    with pytest.raises(MeasureError, match=says):
        call()


def test_the_signed_rank_test_is_that_of_all_sign_flips():
    """Exact by enumeration: the share of the 2^n sign patterns at least as far from the middle."""
    rng = np.random.default_rng(3)
    a, b = rng.lognormal(0.3, 0.4, 9), rng.lognormal(0, 0.4, 9)
    change = np.log(a / b)
    ranks = np.argsort(np.argsort(np.abs(change))) + 1
    signs = np.array(np.meshgrid(*[[-1, 1]] * 9)).reshape(9, -1)
    observed = abs((ranks * np.sign(change)).sum())
    share = (np.abs(ranks @ signs) >= observed).mean()
    found = paired_test(a, b)
    assert found["p"] == pytest.approx(share)
    assert found["effect"] == pytest.approx((ranks * np.sign(change)).sum() / 45)


def test_equal_samples_do_not_differ():
    assert paired_test([1.0, 2.0], [1.0, 2.0])["p"] == 1.0
    with pytest.raises(MeasureError):
        paired_test([1.0], [1.0, 2.0])


def test_a_mean_of_few_has_student_s_interval_and_one_value_none():
    assert mean_ci([1.0, 2.0, 4.0]) == pytest.approx(list(stats.t.interval(0.95, 2, 7 / 3, stats.sem([1, 2, 4]))))
    assert mean_ci([3.0]) is None and mean_ci([3.0, 3.0]) == [3.0, 3.0]


def test_a_difference_of_means_is_welch_s():
    a, b = [1.0, 2.0, 4.0, 4.5], [0.5, 0.7]
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    found = mean_difference(a, b)
    assert found["value"] == pytest.approx(np.mean(a) - np.mean(b)) and found["n"] == 2
    assert found["ci95"] == pytest.approx([expected.low, expected.high])
    assert mean_difference([1.0], b)["ci95"] is None
    assert mean_difference([2.0, 2.0], [1.0, 1.0])["ci95"] == [1.0, 1.0]


def test_a_ratio_of_means_covers_what_it_should_for_few_pairs():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        drift = rng.normal(1, 0.05, 5)
        low, high = ratio_of_means(0.9 * drift * rng.normal(1, 0.01, 5), drift * rng.normal(1, 0.01, 5))["ci95"]
        held += low <= -0.1 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_ratio_of_means_is_exact_for_proportional_pairs_and_refuses_what_is_not_positive():
    base = np.array([1.0, 3.0, 2.0])
    found = ratio_of_means(0.8 * base, base)
    assert found["value"] == pytest.approx(-0.2) and found["ci95"] == pytest.approx([-0.2, -0.2])
    assert ratio_of_means([2.0], [1.0])["ci95"] is None
    with pytest.raises(MeasureError, match="positive"):
        ratio_of_means([1.0, 0.0], [1.0, 1.0])
