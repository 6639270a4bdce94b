"""Verdicts: judged on the bound, never passed by what was not measured."""

import pytest

from icd_lib.errors import ConfigError
from icd_lib.experiment.gates import judge
from icd_lib.metric import figure, not_measured

STRICT = {"latency_rel": -0.20, "l2_pp": 10, "ept_rel": -0.15, "quality_drop_pp": 0.1}


def measured(value, low, high):
    return figure(value, "1", "measured", n=10, ci95=(low, high))


GOOD = {
    "latency_rel": measured(-0.30, -0.32, -0.25),
    "l2_pp": measured(14, 12, 16),
    "ept_rel": measured(-0.2, -0.22, -0.18),
    "quality_drop_pp": measured(-0.1, -0.2, 0.05),
}


def test_all_met_passes_and_the_quality_interval_excludes_the_budget():
    verdict = judge(STRICT, GOOD)
    assert verdict.status == "pass" and set(verdict.checks.values()) == {"pass"}
    assert verdict.bounds == {"quality_drop_pp": "excludes_budget"} and verdict.reasons == {}


@pytest.mark.parametrize(
    ("metric", "item"),
    [("latency_rel", measured(-0.30, -0.42, -0.19)), ("l2_pp", measured(14, 9, 19))],
)
def test_a_bound_that_misses_fails_even_when_the_estimate_meets(metric, item):
    verdict = judge(STRICT, GOOD | {metric: item})
    assert verdict.status == "fail" and verdict.checks[metric] == "fail" and metric in verdict.reasons


def test_a_bound_on_the_threshold_passes():
    assert judge({"latency_rel": -0.2}, {"latency_rel": measured(-0.3, -0.4, -0.2)}).status == "pass"


def test_quality_is_judged_on_the_estimate_and_says_when_the_interval_does_not_exclude_the_budget():
    wide = judge(STRICT, GOOD | {"quality_drop_pp": measured(0.08, -0.1, 0.3)})
    assert wide.checks["quality_drop_pp"] == "pass" and wide.bounds["quality_drop_pp"] == "point_estimate_only"
    worse = judge(STRICT, GOOD | {"quality_drop_pp": measured(0.12, 0.1, 0.2)})
    assert worse.status == "fail" and worse.bounds["quality_drop_pp"] == "exceeds_budget"


@pytest.mark.parametrize(
    "item",
    [
        not_measured("1", "no counters"),
        figure(-0.9, "1", "modelled", ci95=(-0.95, -0.85)),
        figure(-0.9, "1", "simulated", ci95=(-0.95, -0.85)),
        figure(-0.9, "1", "measured"),
        None,
    ],
)
def test_what_was_not_measured_never_passes(item):
    figures = {key: value for key, value in GOOD.items() if key != "ept_rel"}
    if item is not None:
        figures["ept_rel"] = item
    verdict = judge(STRICT, figures)
    assert verdict.status == "partial" and verdict.checks["ept_rel"] == "not_measured"
    assert verdict.reasons["ept_rel"]


def test_a_failure_outweighs_what_was_not_measured():
    figures = {"latency_rel": measured(0.1, 0.0, 0.2)}
    assert judge(STRICT, figures).status == "fail"


def test_no_gates_claim_nothing():
    assert judge({}, GOOD).status == "partial"


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="latency_rel"):
        judge({"latency_re": -0.1}, GOOD)


COST = {"delta_c_rel": -0.1, "delta_q": 0.0}


def computed(value):
    return figure(value, "1", "modelled", n=1, method="computed")


def test_the_cost_is_computed_and_judged_on_its_value():
    assert judge(COST, {"delta_c_rel": computed(-0.1), "delta_q": computed(0.0)}).status == "pass"
    worse = judge(COST, {"delta_c_rel": computed(-0.0999), "delta_q": computed(-1e-6)})
    assert worse.checks == {"delta_c_rel": "fail", "delta_q": "fail"}
    assert worse.reasons["delta_c_rel"].startswith("value -0.0999")
    missing = judge(COST, {"delta_c_rel": not_measured("fraction", "no iterative arm")})
    assert missing.checks == {"delta_c_rel": "not_measured", "delta_q": "not_measured"}


def test_a_threshold_of_null_leaves_its_check_out():
    verdict = judge(STRICT | {"l2_pp": None}, {key: item for key, item in GOOD.items() if key != "l2_pp"})
    assert verdict.status == "pass" and "l2_pp" not in verdict.checks
    with pytest.raises(ConfigError, match="l2_pp"):
        judge({"l2_p": None}, GOOD)
