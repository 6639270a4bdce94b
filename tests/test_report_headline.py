"""The headline claims what the interval supports, and no more."""

from dataclasses import replace

import pytest
from report_factory import relative, write_run

from icd_lib.metric import not_measured
from icd_lib.report.headline import headline
from icd_lib.report.results import Results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results.load(write_run(tmp_path_factory.mktemp("run") / "bert"))


def with_dense(results, item):
    vs_dense = results.verdict["vs_dense"] | {"latency_rel": item}
    return replace(results, verdict=results.verdict | {"vs_dense": vs_dense})


def test_faster_only_when_the_whole_interval_is(results):
    assert headline(with_dense(results, relative(-0.4)))[0].startswith(
        "Iterative takes 40.0 % less time than the dense"
    )
    assert headline(with_dense(results, relative(-0.01)))[0].startswith("No difference in latency")
    assert "MORE time" in headline(with_dense(results, relative(0.3)))[0]


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ("excludes_budget", "the whole interval lies within the budget"),
        ("point_estimate_only", "only the point estimate meets the budget"),
        ("exceeds_budget", "that exceeds the budget"),
    ],
)
def test_quality_says_what_the_interval_says(results, bound, words):
    strict = results.verdict["strict"] | {"bounds": {"quality_drop_pp": bound}}
    lines = headline(replace(results, verdict=results.verdict | {"strict": strict}))
    assert "loses 0.040 pp" in lines[1] and words in lines[1] and "SE 0.030 pp" in lines[1]


def test_a_partial_gate_is_not_called_met(results):
    gate = next(line for line in headline(results) if line.startswith("Gate smoke"))
    assert "not decided" in gate and "L2 hit rate not measured" in gate


def test_missing_iterative_arm_and_unjudged_quality(results, tmp_path):
    lines = headline(with_dense(results, not_measured("fraction", "the run has no arm 'iterative'")))
    assert lines[0] == "No result for iterative: the run has no arm 'iterative'."
    assert lines[1].startswith("Linear takes 10.0 % less time than the dense model")
    random = Results.load(write_run(tmp_path / "bert", trained=False))
    assert "Quality was not measured: random weights." in headline(random)


def test_accepting_nothing_and_a_broken_control_are_said(results):
    solves = {"iterative": results.solves["iterative"] | {"accepted_strength": 0.0}}
    control = results.verdict["aa_control"] | {"contains_zero": {"8x128": False}}
    lines = headline(replace(results, solves=solves, verdict=results.verdict | {"aa_control": control}))
    assert any(line.startswith("Iterative accepted nothing (3 attempts were rolled back)") for line in lines)
    assert any("A/A control at 8x128 excludes 0" in line for line in lines)
