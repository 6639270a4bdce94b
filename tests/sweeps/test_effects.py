"""Main effects: pairs that differ in nothing else, on one machine, and the interval over them."""

import math
from dataclasses import replace

import pytest
from scipy.stats import t
from sweep_factory import HERE, write_sweep

from icd_lib.sweeps.effects import arm_effects, main_effects
from icd_lib.sweeps.pairs import mean_figure

FACTORS = {"rate": ["0.3", "0.5"], "bits": ["32", "8"]}
POINTS = {
    f"{rate}-{bits}": ({"rate": rate, "bits": bits}, given)
    for (rate, bits), given in {
        ("0.3", "32"): (10.0, 0.1, 1000),
        ("0.5", "32"): (8.0, 0.3, 800),
        ("0.3", "8"): (5.0, 0.2, 250),
        ("0.5", "8"): (4.5, 0.6, 200),
    }.items()
}


def rows_of(folder, points=POINTS, arm="iterative"):
    return [row for row in write_sweep(folder, points, FACTORS).rows if row.arm == arm]


def test_an_effect_is_the_mean_over_the_pairs_with_students_interval(tmp_path):
    rate, bits = main_effects(rows_of(tmp_path / "s"), FACTORS)
    assert (rate.factor, rate.level, rate.against) == ("rate", "0.5", "0.3")
    logs = [math.log(8 / 10), math.log(4.5 / 5)]
    assert rate.latency.value == pytest.approx(math.exp(sum(logs) / 2) - 1) and rate.latency.n == 2
    half = t.ppf(0.975, 1) * abs(logs[0] - logs[1]) / 2  # the standard error of two
    low, high = rate.latency.ci95
    assert (low, high) == pytest.approx((math.exp(sum(logs) / 2 - half) - 1, math.exp(sum(logs) / 2 + half) - 1))
    assert rate.quality_drop_pp.value == pytest.approx(0.3) and rate.size.value == pytest.approx(-0.2)
    assert bits.size.value == pytest.approx(-0.75) and bits.quality_drop_pp.value == pytest.approx(0.2)


def test_a_point_without_its_partner_and_one_of_another_machine_are_no_pair(tmp_path):
    points = dict(POINTS)
    points["0.5-8"] = (points["0.5-8"][0], {"status": "failed", "reason": "it broke"})
    rate = main_effects(rows_of(tmp_path / "a", points), FACTORS)[0]
    assert rate.latency.n == 1 and rate.latency.ci95 is None and "no interval" in rate.latency.method
    points["0.5-8"] = (points["0.5-8"][0], (4.5, 0.6, 200, replace(HERE, machine="another CPU")))
    assert main_effects(rows_of(tmp_path / "b", points), FACTORS)[0].latency.n == 1


def test_what_was_not_measured_leaves_the_other_figures(tmp_path):
    points = {
        name: (levels, (None if name == "0.5-8" else given[0], *given[1:])) for name, (levels, given) in POINTS.items()
    }
    rate = main_effects(rows_of(tmp_path / "s", points), FACTORS)[0]
    assert rate.latency.n == 1 and rate.quality_drop_pp.n == 2
    assert mean_figure([], "pp", "pair").reason == "no pair of points that differ in nothing else was measured"


def test_scenarios_are_compared_in_size_alone(tmp_path):
    points = {
        name: ({"base": "mamba" if levels["bits"] == "8" else "bert", "rate": levels["rate"]}, given)
        for name, (levels, given) in POINTS.items()
    }
    base, rate = main_effects(rows_of(tmp_path / "s", points), {"base": ["bert", "mamba"], "rate": ["0.3", "0.5"]})
    assert base.latency.is_missing and "models of their own" in base.quality_drop_pp.reason
    assert base.size.value == pytest.approx(-0.75) and rate.latency.n == rate.quality_drop_pp.n == 2


def test_arms_are_compared_within_their_point(tmp_path):
    rows = write_sweep(tmp_path / "s", POINTS, FACTORS).rows
    effect = arm_effects(rows, "iterative", "linear")
    wanted = [math.log(ms / (ms + 2)) for ms in (10.0, 8.0, 5.0, 4.5)]
    assert effect.latency.value == pytest.approx(math.exp(sum(wanted) / 4) - 1) and effect.latency.n == 4
