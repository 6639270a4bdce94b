"""Interactions: quadruples that differ in two factors alone, on one machine, and the interval over them."""

import math
from dataclasses import replace

import pytest
from scipy.stats import t
from sweep_factory import HERE, write_sweep

from icd_lib.sweeps.interactions import interactions

FACTORS = {"rate": ["0.3", "0.5"], "bits": ["32", "8"], "length": ["256", "1024"]}
GIVEN = {
    ("0.3", "32", "256"): (10.0, 0.1, 1000),
    ("0.5", "32", "256"): (8.0, 0.3, 800),
    ("0.3", "8", "256"): (5.0, 0.2, 250),
    ("0.5", "8", "256"): (4.5, 0.6, 200),
    ("0.3", "32", "1024"): (40.0, 0.1, 1000),
    ("0.5", "32", "1024"): (30.0, 0.2, 800),
    ("0.3", "8", "1024"): (20.0, 0.2, 250),
    ("0.5", "8", "1024"): (19.0, 0.9, 200),
}


def found_of(folder, changed=None, factors=FACTORS):
    points = {
        "-".join(levels): (dict(zip(FACTORS, levels, strict=True)), given)
        for levels, given in (GIVEN | (changed or {})).items()
    }
    rows = [row for row in write_sweep(folder, points, FACTORS).rows if row.arm == "iterative"]
    return {(one.factor, one.other): one for one in interactions(rows, factors)}


def test_an_interaction_is_the_mean_contrast_over_the_quadruples_with_students_interval(tmp_path):
    found = found_of(tmp_path / "s")
    assert list(found) == [("rate", "bits"), ("rate", "length"), ("bits", "length")]
    one = found["rate", "bits"]
    contrasts = [math.log(4.5 / 5) - math.log(8 / 10), math.log(19 / 20) - math.log(30 / 40)]
    mean, half = sum(contrasts) / 2, t.ppf(0.975, 1) * abs(contrasts[0] - contrasts[1]) / 2
    assert one.latency.n == 2 and one.latency.value == pytest.approx(math.exp(mean) - 1)
    assert one.latency.ci95 == pytest.approx((math.exp(mean - half) - 1, math.exp(mean + half) - 1))
    assert one.quality_drop_pp.value == pytest.approx(((0.6 - 0.2) - (0.3 - 0.1) + (0.9 - 0.2) - (0.2 - 0.1)) / 2)
    assert one.size.value == pytest.approx(0) and (one.level, one.other_level) == ("0.5", "8")


def test_it_is_the_same_from_either_factor(tmp_path):
    forth = found_of(tmp_path / "a")["rate", "bits"]
    back = found_of(tmp_path / "b", factors={"bits": FACTORS["bits"], "rate": FACTORS["rate"]})["bits", "rate"]
    assert back.latency.value == pytest.approx(forth.latency.value)
    assert back.quality_drop_pp.value == pytest.approx(forth.quality_drop_pp.value)


def test_of_two_scenarios_latency_and_size_interact_and_losses_are_not_compared(tmp_path):
    points = {
        "-".join(levels): (dict(zip(("rate", "base", "length"), levels, strict=True)), given)
        for levels, given in GIVEN.items()
    }
    factors = {"rate": FACTORS["rate"], "base": FACTORS["bits"], "length": FACTORS["length"]}
    rows = [row for row in write_sweep(tmp_path / "s", points, factors).rows if row.arm == "iterative"]
    one, other, _ = interactions(rows, factors)
    assert one.latency.n == 2 and one.quality_drop_pp.is_missing
    assert other.quality_drop_pp.n == 2, "of rate and length, within a scenario"


def test_a_multiplicative_latency_has_no_interaction(tmp_path):
    product = {
        (rate, bits, length): ({"0.3": 40.0, "0.5": 32.0}[rate] * (0.5 if bits == "8" else 1.0), 0.1, 100)
        for rate, bits, length in GIVEN
    }
    assert found_of(tmp_path / "a", product)["rate", "bits"].latency.value == pytest.approx(0)


def test_one_quadruple_has_no_interval_and_what_lacks_a_corner_or_is_of_two_machines_is_none(tmp_path):
    changed = {("0.5", "8", "1024"): {"status": "failed", "reason": "it broke"}}
    one = found_of(tmp_path / "a", changed)["rate", "bits"]
    assert one.latency.n == 1 and one.latency.ci95 is None and "one quadruple, so no interval" in one.latency.method
    assert not one.is_clear
    elsewhere = {("0.5", "8", "1024"): (*GIVEN["0.5", "8", "1024"], replace(HERE, machine="another CPU"))}
    assert found_of(tmp_path / "b", elsewhere)["rate", "bits"].latency.n == 1
    gone = {levels: {"status": "failed", "reason": "it broke"} for levels in GIVEN if levels[:2] == ("0.5", "8")}
    assert list(found_of(tmp_path / "c", gone)) == [("rate", "length"), ("bits", "length")]


def test_what_was_not_measured_leaves_the_other_figures(tmp_path):
    changed = {("0.5", "8", "256"): (None, 0.6, 200)}
    one = found_of(tmp_path / "s", changed)["rate", "bits"]
    assert one.latency.n == 1 and one.quality_drop_pp.n == 2 and one.size.n == 2


def test_what_is_clear_leaves_out_0(tmp_path):
    changed = {("0.5", "8", "1024"): (19.0, 0.505, 200), ("0.5", "32", "1024"): (30.0, 0.2, 800)}
    assert found_of(tmp_path / "a", changed)["rate", "bits"].quality_drop_pp.ci95[0] > 0
    assert found_of(tmp_path / "b", changed)["rate", "bits"].is_clear
