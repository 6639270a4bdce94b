"""The headline claims what the interval supports, and no more."""

from dataclasses import replace

import pytest
from report_factory import relative, with_section, with_solved, with_verdict, write_run

from icd_lib.metric import not_measured
from icd_lib.report.headline import headline
from icd_lib.report.results import Results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results.load(write_run(tmp_path_factory.mktemp("run") / "bert"))


def with_dense(results, item):
    return with_section(results, "vs_dense", latency_rel=item)


def test_faster_only_when_the_whole_interval_is(results):
    assert headline(with_dense(results, relative(-0.4)))[0].startswith(
        "Iterative takes 40.0 % less time than the dense"
    )
    assert headline(with_dense(results, relative(-0.01)))[0].startswith("No difference in latency")
    assert "MORE time" in headline(with_dense(results, relative(0.3)))[0]


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ("excludes_budget", "The strict gate allows 0.1 pp: the whole interval lies within that."),
        ("point_estimate_only", "only the point estimate lies within that"),
        ("exceeds_budget", "the loss exceeds that"),
    ],
)
def test_quality_says_what_the_interval_says(results, bound, words):
    strict = replace(results.verdict.strict, bounds={"quality_drop_pp": bound})
    lines = headline(with_verdict(results, strict=strict))
    assert lines[1].startswith("On unseen text it loses 0.040 pp of own quality") and "SE 0.030 pp" in lines[1]
    assert words in lines[1] and lines[2].startswith("On seen text it loses 0.010 pp") and words not in lines[2]


def test_the_first_line_has_the_speed_and_what_is_lost_on_both_texts_in_both_readings(results):
    first = headline(results)[0]
    assert "own quality lost: +0.040 pp on unseen text and +0.010 pp on seen text" in first
    assert "drop-in quality lost: +0.840 pp on unseen text and +0.810 pp on seen text" in first


def test_what_the_gates_compare_comes_first_and_harder_comparisons_have_their_own_verdicts(results):
    lines = headline(results)
    places = [
        next(i for i, line in enumerate(lines) if f"than {other}" in line)
        for other in ("the same transform in linear's layout", "linear at the same", "oneshot at the same")
    ]
    assert places == sorted(places)
    assert "limits" not in lines[places[0]]
    for place in places[1:]:
        assert lines[place].endswith("put to the gates' limits of latency: smoke met, strict not met.")
    assert "Gate smoke (iterative vs the same transform in linear's layout)" in "".join(lines)
    other = with_verdict(results, gates_comparison="same_quality")
    assert any("Gate smoke (iterative vs linear at the same quality budget)" in line for line in headline(other))


def test_a_domain_above_the_budget_is_named_and_text_outside_the_domain_too(results, tmp_path):
    above = "Domains above the budget of 0.1 pp by themselves: "
    assert f"{above}products (unseen) +0.300 pp." in headline(results)
    assert not any(line.startswith("Outside its domain") for line in headline(results))
    lines = headline(Results.load(write_run(tmp_path / "bert", budget_on="seen")))
    assert any(line.startswith("Outside its domain, on unseen text, it loses +2.040 pp: above") for line in lines)
    assert f"{above}products (unseen) +2.300 pp, dialogues (unseen) +1.780 pp." in lines
    assert "on seen text and" in lines[0] and lines[1].startswith("On seen text")


def test_a_language_model_loses_next_token_accuracy_and_has_no_drop_in(tmp_path):
    lines = headline(Results.load(write_run(tmp_path / "mamba", language=True)))
    assert "next-token accuracy lost: +0.040 pp on unseen text" in lines[0]
    assert "perplexity relative to dense 1.0042" in lines[1] and not any("drop-in" in line for line in lines)


def test_j_against_the_clock_and_a_missed_target_are_said(results):
    assert [line for line in headline(results) if line.startswith("J and the clock disagree (iterative): J rose by")]
    lines = headline(with_solved(results, "iterative", latency_target_rel=-0.6, reached=False))
    assert "The latency target of −60.0 % was NOT reached by iterative: the tables predict −38.0 %." in lines


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
    refused = with_solved(results, "iterative", accepted_strength=0.0)
    lines = headline(with_section(refused, "aa_control", contains_zero={"8x128": False}))
    assert any(line.startswith("Iterative accepted nothing (3 attempts were rolled back)") for line in lines)
    assert any("A/A control at 8x128 excludes 0" in line for line in lines)
