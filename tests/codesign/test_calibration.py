"""Calibration: known laws are found again, noise changes nothing, and what was kept comes back."""

import json

import numpy as np
import pytest

import icd_lib as icd
from icd_lib.codesign.calibration import Calibration, _ridge, _weights, calibrate, calibration_key
from icd_lib.errors import ArtifactError, ConfigError, MeasureError
from icd_lib.graph.mock import planted_graph
from icd_lib.solver.cost import CostConfig, evaluate_cost
from icd_lib.storage import machine

D = 256
COST = CostConfig(g=4, v=8, h=D)
W, PLANTED = planted_graph(D, blocks=4, degree=12, noise=0.05, seed=2)


def by_law(alpha=0.0, beta=0.0, mu=0.0, noise=0.0, **others):
    """A `measure` whose latency is 10 ms times 1 + alpha C + beta R_align - mu Q, noise relative."""

    def measure(layouts):
        rng, results = np.random.default_rng(0), []
        for pi in layouts:
            report = evaluate_cost(W, pi, COST)
            ms = 10 * (1 + alpha * report.C + beta * report.R_align - mu * report.Q)
            results.append({"latency_ms": (ms * (1 + noise * rng.standard_normal(5))).tolist(), **others})
        return results

    return measure


def calibrated(measure, **settings) -> Calibration:
    return calibrate(W, measure, cost=COST, layouts={"search": PLANTED}, **settings)


@pytest.mark.parametrize("law", [(2.0, 0.0, 0.3), (1.0, 0.5, 0.0), (0.2, 0.1, 0.8)])
def test_a_linear_law_is_found_again(law):
    found = calibrated(by_law(*law))
    assert found.r2["latency_ms"] > 0.99
    assert not found.kept_defaults
    weights = np.array([found.weights.alpha, found.weights.beta, found.weights.mu])
    assert weights.sum() == pytest.approx(1.7)  # the sum of the given ones
    assert weights == pytest.approx(1.7 * np.array(law) / sum(law), abs=0.05)
    assert (found.weights.gamma_s, found.weights.g) == (COST.gamma_s, COST.g)
    predicted = found.predicted("latency_ms")
    assert predicted == pytest.approx(found.changes("latency_ms"), abs=0.02)


def test_noise_keeps_the_given_weights_and_says_so():
    found = calibrated(by_law(noise=0.1))
    assert found.r2["latency_ms"] <= 0.6
    assert found.kept_defaults and found.weights == COST
    assert "poor fit" in found.reason and "given weights are kept" in found.reason


def test_a_law_against_the_signs_of_j_keeps_the_given_weights():
    # Faster the further apart: no weights >= 0 say so.
    found = calibrated(by_law(alpha=-0.9))
    assert found.r2["latency_ms"] <= 0.6
    assert found.weights == COST


def test_slopes_of_zero_are_no_weights():
    weights, reason = _weights(0.9, {"C": 0.0, "R_align": 0.0, "Q": -0.0}, COST)
    assert weights is None and "given weights are kept" in reason


def test_a_constant_latency_keeps_the_given_weights():
    found = calibrated(by_law())
    assert found.r2["latency_ms"] is None and "did not vary" in found.reason
    assert found.weights == COST


def test_targets_that_were_not_measured_have_no_r2():
    found = calibrated(by_law(1.0, l2_hit_pct=None, energy_j=3.0))
    missing = dict.fromkeys(("l1_hit_pct", "l2_hit_pct", "energy_j"))
    assert found.r2 == {"latency_ms": found.r2["latency_ms"]} | missing
    with pytest.raises(MeasureError, match="l2_hit_pct was not measured"):
        found.changes("l2_hit_pct")


def test_hits_fall_as_the_cost_rises():
    def measure(layouts):
        results = by_law(1.0)(layouts)
        for pi, result in zip(layouts, results, strict=True):
            report = evaluate_cost(W, pi, COST)
            result["l2_hit_pct"] = 90 - 40 * report.C
            result["energy_j"] = 1e-3 * (1 + report.C)
        return results

    found = calibrated(measure)
    assert found.r2["l2_hit_pct"] > 0.99 and found.r2["energy_j"] > 0.99
    assert found.slopes["l2_hit_pct"]["C"] == pytest.approx(-40, rel=0.1)
    identity = evaluate_cost(W, np.arange(D), COST).C
    assert found.slopes["energy_j"]["C"] == pytest.approx(1 / (1 + identity), rel=0.1)
    assert found.changes("l2_hit_pct")[1:].max() > 0  # percentage points, not a fraction


def test_pilots_carry_their_costs():
    found = calibrated(by_law(1.0), pilots=9)
    report = evaluate_cost(W, PLANTED, COST, np.arange(D))
    pilot = next(pilot for pilot in found.pilots if pilot.name == "search")
    assert (pilot.C, pilot.Q, pilot.R_align, pilot.R_stab) == (report.C, report.Q, report.R_align, report.R_stab)
    assert len(found.pilots) == 9
    assert found.changes("C")[0] == 0


def test_a_machine_busy_most_of_the_time_gives_the_same_fit():
    def disturbed(layouts):
        rng, results = np.random.default_rng(1), by_law(1.0, 0.1, 0.5)(layouts)
        for result in results:
            clean, delay = np.array(result["latency_ms"] * 8), 2 * rng.random(40)
            result["latency_ms"] = (clean * (1 + delay * (rng.random(40) < 0.7))).tolist()
        return results

    quiet, busy = calibrated(by_law(1.0, 0.1, 0.5)), calibrated(disturbed)
    assert busy.weights == quiet.weights
    assert max(busy.pilots[0].samples_ms) > 1.5 * busy.pilots[0].targets["latency_ms"]  # what was measured is kept


def test_the_ridge_reaches_from_the_data_to_the_prior():
    rng = np.random.default_rng(0)
    terms, prior = rng.standard_normal((30, 3)), np.array([1.0, 0.2, 0.5])
    change = terms @ np.array([0.5, 0.0, 2.0]) + 7
    exact, level = _ridge(terms, change, prior, 1e-9)
    assert exact == pytest.approx([0.5, 0.0, 2.0], abs=1e-6) and level == pytest.approx(7)
    shrunk, _ = _ridge(terms, change, prior, 1e9)
    assert shrunk / shrunk[0] == pytest.approx(prior, rel=1e-6)
    line = terms @ prior - (terms @ prior).mean()
    assert shrunk[0] == pytest.approx(line @ change / (line @ line), rel=1e-6)


def test_a_calibration_survives_json(tmp_path):
    found = calibrated(by_law(1.0, 0.1, 0.5, noise=0.01), pilots=10)
    assert Calibration.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(ArtifactError, match="not a calibration"):
        Calibration.from_json({"pilots": []})


def test_it_is_kept_per_key(tmp_path, monkeypatch):
    monkeypatch.setenv("ICD_CACHE_DIR", str(tmp_path))
    found = calibrated(by_law(1.0), pilots=8)
    key = calibration_key(W, COST, repeats=5)
    assert Calibration.load(key) is None
    assert found.save(key)
    assert Calibration.load(key) == found
    assert Calibration.load(calibration_key(W, COST, repeats=6)) is None
    assert Calibration.load(calibration_key(2 * W, COST, repeats=5)) is None
    machine.keep("calibration", key, {"pilots": [], "written by": "an older version"})
    assert Calibration.load(key) is None
    machine.kept_file("calibration", key).write_text("{")
    assert Calibration.load(key) is None


@pytest.mark.parametrize(
    ("results", "word"),
    [
        (lambda count: [{"latency_ms": [1.0]}] * (count - 1), "returned 7 results"),
        (lambda count: [{"latency_ms": []}] * count, "pilot 'identity': latency_ms"),
        (lambda count: [{"latency_ms": [1.0, 0.0]}] * count, "positive samples"),
        (lambda count: [{}] * count, "latency_ms"),
        (lambda count: [{"latency_ms": [1.0], "energy_j": float("nan")}] * count, "energy_j"),
    ],
)
def test_measurements_that_do_not_fit_are_refused(results, word):
    with pytest.raises(MeasureError, match=word):
        calibrated(lambda layouts: results(len(layouts)), pilots=8)


def test_too_few_pilots_are_refused():
    with pytest.raises(ConfigError, match="pilots"):
        calibrated(by_law(1.0), pilots=3)


def test_the_public_name_is_the_function():
    assert icd.calibrate is calibrate
