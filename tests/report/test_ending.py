"""The last lines on the terminal: what there is now, where, what it is worth, what it costs, how it is loaded."""

import ast
from dataclasses import replace

import pytest
from report_factory import relative, with_solved, with_verdict, write_run

from icd_lib.records.attempts import RowsSizes, SolvedRows
from icd_lib.records.verdict import CostChange, Section
from icd_lib.report.ending import ending_lines
from icd_lib.report.results import Results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return Results.load(write_run(tmp_path_factory.mktemp("run") / "bert"))


def table(results):
    """The made-up run as one on a table of rows."""
    packed = Section(shapes={"chained": relative(-0.05)}, latency_rel=relative(-0.05))
    cost = CostChange(delta_c_rel=-0.25, delta_q=0.1, delta_j=-0.1)
    sizes = RowsSizes(rows=12, living_rows=12, dead_rows_kept=0, tiles=3, parameter_bytes=768)
    solves = {
        mode: SolvedRows(**vars(solve) | {"attempts": [], "sizes": sizes}) for mode, solve in results.solves.items()
    }
    lock = results.lock | {"config": {"workload": {"kind": "table"}}}
    sections = results.verdict.sections | {"vs_packed": packed}
    return replace(with_verdict(results, sections=sections, cost=cost), lock=lock, solves=solves)


def python_of(lines):
    return "\n".join(line.strip() for line in lines if line.startswith("  "))


def test_a_smaller_model_with_its_worth_and_its_cost(results, monkeypatch):
    monkeypatch.chdir(results.dir.parent)
    lines = ending_lines(results)
    assert len(lines) <= 10
    assert lines[0] == "You have a smaller model, 3.0 MB instead of 4.0 MB, in bert/iterative/model"
    assert lines[1] == "Time against dense, eager: −40.0 % (−42.0 to −38.0 %), 8 × 128 tokens"
    assert lines[2].startswith("Fastest here: OpenVINO bf16, −70.0 % (−72.0 to −68.0 %) to dense in eager; in it")
    assert lines[3] == (
        "Lost on unseen text: own quality +0.040 pp (−0.020 to +0.100 pp); "
        "drop-in quality +0.840 pp (+0.780 to +0.900 pp)"
    )
    assert lines[4].startswith("Lost on seen text: own quality +0.010 pp")
    assert lines[5].startswith("Gates (iterative vs the same transform in linear's layout): smoke not decided")
    assert "vs linear at the same quality budget (smoke met, strict not met)" in lines[6]
    ast.parse(python_of(lines))
    assert 'icd.load_optimized("bert/iterative/model")' in python_of(lines)


def test_a_folder_elsewhere_is_named_in_full_and_quoted(results, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    odd = replace(results, dir=results.dir.parent / 'a "b"')
    code = python_of(ending_lines(odd))
    (path,) = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    assert path == str(odd.dir / "iterative" / "model")


def test_losses_above_the_budget_are_said_and_those_outside_the_domain(tmp_path):
    lines = ending_lines(Results.load(write_run(tmp_path / "bert", budget_on="seen")))
    (unseen,) = [line for line in lines if line.startswith("Lost on unseen")]
    assert unseen.endswith("ABOVE the budget of 0.1 pp (outside its domain)")
    assert not any("ABOVE" in line for line in lines if line.startswith("Lost on seen"))


def test_a_missed_target_is_said(results):
    lines = ending_lines(with_solved(results, "iterative", latency_target_rel=-0.6, reached=False))
    assert lines[1].endswith("the target of −60.0 % was NOT reached")


def test_linear_alone_says_so_and_is_judged_by_no_gate(results):
    lines = ending_lines(replace(results, solves={"linear": results.solves["linear"]}))
    assert lines[0] == "Iterative was not run: what follows is linear's."
    assert "linear/model" in lines[1] and "−10.0 %" in lines[2] and not any("Fastest" in line for line in lines)
    assert any(line.startswith("Lost on unseen") for line in lines)
    assert not any(line.startswith("Lost on seen") for line in lines)
    assert "Gates: not judged, they compare iterative with linear" in lines


def test_nothing_accepted_promises_nothing(results):
    lines = ending_lines(with_solved(results, "iterative", accepted_strength=0.0))
    assert lines[0].startswith("Nothing was accepted: every attempt of iterative was rolled back")
    assert "still the dense model, no smaller and no faster" in lines[1] and python_of(lines) == ""


def test_random_weights_and_an_unfinished_run(results, tmp_path):
    random = Results.load(write_run(tmp_path / "bert", trained=False, ladder=False))
    assert "Quality was not measured: random weights" in ending_lines(random)
    assert ending_lines(replace(results, verdict=None)) == ["Nothing was optimised and judged in this run."]


def test_a_table_of_rows_gives_a_layout(results, monkeypatch):
    monkeypatch.chdir(results.dir.parent)
    lines = ending_lines(table(results))
    assert lines[0] == "You have a layout, 12 rows in their new order, in bert/iterative/transform_meta.json"
    assert "−35.0 % (−37.0 to −33.0 %) to linear, with the same transform" in lines[1]
    assert "−5.00 %" in lines[1] or "−5.0 %" in lines[1]
    assert "by −25.0 % (computed)" in lines[2]
    ast.parse(python_of(lines))
    assert 'open("bert/iterative/transform_meta.json")' in python_of(lines) and "old_table[order]" in python_of(lines)


def test_axes_that_were_left_for_want_of_whole_tiles_are_told_whatever_was_accepted(results):
    line = "axis 'ffn.0': 100 FFN neurons are no whole number of tiles of 16; set tile (transform.tile) to 10"
    for strength in (-0.3, 0.0):
        changed = replace(results.solves["iterative"], unfit=[line], accepted_strength=strength)
        assert f"Not made smaller: {line}" in ending_lines(replace(results, solves={"iterative": changed}))
    assert not [line for line in ending_lines(results) if line.startswith("Not made smaller")]
