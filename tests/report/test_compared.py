"""What the gates compare is said on every page, and what they do not judge is put to the same limits in the open."""

from dataclasses import replace

import pytest
from report_factory import relative, with_section, with_verdict, without_arm, write_run

from icd_lib.experiment.gates import GATES
from icd_lib.metric import not_measured
from icd_lib.report import measure_tables
from icd_lib.report.compared import judged, latency_states, other_arm
from icd_lib.report.readme import latency_table
from icd_lib.report.results import Results
from icd_lib.report.rows import key_numbers, report_csv

SAME, HARDER = "the same transform in linear's layout", "linear at the same quality budget"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results.load(write_run(tmp_path_factory.mktemp("run") / "bert"))


def judging(results, comparison):
    others = {key: {"smoke": "pass", "strict": "fail"} for key in ("same_transform", "vs_oneshot")}
    changed = {"gates_comparison": comparison, "other_comparisons": others}
    return with_verdict(results, **changed)


def test_the_gates_checks_are_named_after_what_they_compare(results):
    names = [row[1] for row in measure_tables.gates(results).rows]
    assert f"latency, iterative vs {SAME}" in names and f"L2 hit rate, iterative vs {SAME}" in names
    assert "quality lost against dense, unseen text" in names
    assert f"compared: iterative vs {SAME}" in measure_tables.gates(results).note
    other = measure_tables.gates(judging(results, "same_quality"))
    assert f"latency, iterative vs {HARDER}" in [row[1] for row in other.rows]
    latency = next(row for row in other.rows if row[1].startswith("latency"))
    assert latency[3].value == results.verdict.section("same_quality").latency_rel.value


def test_every_comparison_says_whether_it_meets_the_limits(results):
    table = measure_tables.comparisons(results)
    assert table.columns[-2:] == ["smoke: ≤ −10 % at 8x128", "strict: ≤ −30 % at 8x128"]
    found = {row[0]: [str(cell) for cell in row[-2:]] for row in table.rows}
    assert found == {
        f"iterative vs {SAME} (the gates judge this one)": ["met", "met"],
        f"iterative vs {HARDER}": ["met", "not met"],
        "iterative vs oneshot at the same quality budget": ["met", "not met"],
        "iterative vs dense": ["–", "–"],
        "iterative vs the same mask in a random layout (placebo)": ["–", "–"],
        "dense vs dense (A/A control)": ["–", "–"],
    }
    assert '<span class="fail">not met</span>' in table.to_html()


def test_what_the_gates_judge_comes_first_whichever_it_is(results):
    assert list(latency_states(results)) == ["same_transform", "same_quality", "vs_oneshot"]
    other = judging(results, "same_quality")
    assert latency_states(other) == {
        "same_quality": {"smoke": "pass", "strict": "pass"},
        "same_transform": {"smoke": "pass", "strict": "fail"},
        "vs_oneshot": {"smoke": "pass", "strict": "fail"},
    }
    assert judged(other) == f"iterative vs {HARDER}"
    assert measure_tables.comparisons(other).rows[0][0].startswith(f"iterative vs {HARDER} (the gates judge")


def test_a_gate_without_a_limit_of_latency_gives_none(results):
    strict = replace(results.verdict.strict, checks={"quality_drop_pp": "pass"})
    states = latency_states(with_verdict(results, strict=strict))
    assert all(list(found) == ["smoke"] for found in states.values())


def test_gates_on_the_time_per_token_say_so_and_mark_no_comparison_of_calls(results):
    checks = {"token_rel": "pass", "l2_pp": "not_measured"}
    gates = {gate: replace(results.verdict.gate(gate), checks=checks, reasons={}, bounds={}) for gate in GATES}
    other = with_verdict(results, **gates)
    assert judged(other) == "time per token as exported vs the dense model in PyTorch"
    assert not any("the gates judge" in row[0] for row in measure_tables.comparisons(other).rows)
    assert f"L2 hit rate, iterative vs {SAME}" in [row[1] for row in measure_tables.gates(other).rows]
    remarks = [remark for what, _, remark in key_numbers(other) if SAME in what]
    assert remarks == ["no gate limits it"] and "(the gates judge this)" not in latency_table(other)


def test_on_a_table_of_rows_both_comparisons_are_one(results):
    table = replace(results, lock={"config": {"workload": {"kind": "table"}}})
    assert other_arm(table, "same_transform") == other_arm(table, "same_quality") == "linear, with the same transform"


ONESHOT = "iterative vs oneshot at the same quality budget"


def rows_of(results) -> list[str]:
    return [row[0] for row in measure_tables.comparisons(results).rows]


def test_a_comparison_with_an_arm_that_nobody_asked_for_is_on_no_page(results):
    assert ONESHOT in rows_of(results)
    other = without_arm(results, "oneshot", "vs_oneshot")
    assert rows_of(other) == [row for row in rows_of(results) if row != ONESHOT]
    assert "vs_oneshot" not in latency_states(other) and "oneshot" not in latency_table(other)
    assert not [what for what, *_ in key_numbers(other) if "oneshot" in what]
    assert "oneshot" in report_csv(other), "the file keeps what the verdict says"


def test_what_was_to_be_measured_and_was_not_stays_with_its_reason(results):
    """An arm that was solved, or timed; a shape that has a figure; and whatever the gates judge."""
    gone = without_arm(results, "oneshot", "vs_oneshot")
    assert ONESHOT in rows_of(replace(gone, stages={"02_solve[oneshot]": {"status": "failed"}}))
    assert ONESHOT in rows_of(replace(gone, measure=results.measure))
    figures = {"8x128": not_measured("fraction", "the run has no arm 'oneshot'"), "1x64": relative(-0.1)}
    assert ONESHOT in rows_of(with_section(gone, "vs_oneshot", shapes=figures))
    judged_too = without_arm(judging(results, "same_quality"), "linear", "same_quality")
    assert rows_of(judged_too)[0] == f"iterative vs {HARDER} (the gates judge this one)"
    assert f"iterative vs {HARDER}" not in rows_of(without_arm(results, "linear", "same_quality"))
