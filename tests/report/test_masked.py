"""What a page says of a given mask: what is dead and leaves, and the zeros that no order gathers."""

from dataclasses import replace

import pytest
from report_factory import write_run

from icd_lib.report import graph_figures, masked, measure_tables
from icd_lib.report.headline import headline
from icd_lib.report.results import Results
from icd_lib.report.table import DoesNotApply, Missing
from icd_lib.storage.atomic import to_json

AXES = [
    {"axis": "ffn.0", "kind": "ffn", "size": 32, "dead": 12, "kept": 24, "kept_stored": 32, "zeros": 0.5, "left": 0.25}
    | {"now": 0.96, "solved": 0.9, "least": 0.75},
    {"axis": "heads.0", "kind": "heads", "size": 4, "dead": 1, "kept": 3, "kept_stored": 3, "zeros": 0.1, "left": 0.0},
]


@pytest.fixture
def results(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "graph" / "masked.json").write_text(to_json({"tile": 8, "axes": AXES}))
    found = Results.load(folder)
    return replace(found, lock=found.lock | {"config": found.config | {"masked": {}}})


def test_the_table_has_every_count_and_the_bound(results):
    table = masked.removable(results)
    assert table.rows[0] == ["ffn.0", "32", "20", "12", "0", "8", "50.0 %", "25.0 %", "96.0 %", "90.0 %", "75.0 %"]
    assert table.rows[1][-3:] == ["–"] * 3 and "tiles of 8" in table.note


def test_the_sentences_say_what_leaves_and_what_cannot(results):
    first, second, third = masked.lines(results)
    assert first == (
        "Of 32 FFN neurons 12 are dead in the given model: 8 leave once they are gathered, 0 in the stored order."
    )
    assert second.startswith("Of 4 attention heads 1 are dead")
    assert "25.0 % of the weights along ffn.0" in third and "touches 90.0 %" in third and "less than 75.0 %" in third
    assert {first, second, third} <= set(headline(results))
    assert masked.dead_and_alive(results).alt == " ".join([first, second, third])


def test_where_nothing_is_dead_the_first_sentence_says_so(results):
    scattered = AXES[0] | {"dead": 0, "kept": 32}
    (results.dir / "graph" / "masked.json").write_text(to_json({"tile": 8, "axes": [scattered]}))
    assert masked.lines(results)[0] == "No element of the given model is dead, so nothing can be removed from it."


def test_it_is_not_of_other_runs_and_waits_for_its_stage(results, tmp_path):
    other = Results.load(write_run(tmp_path / "other"))
    for show in (masked.removable, masked.dead_and_alive):
        assert isinstance(show(other), DoesNotApply)
    assert masked.lines(other) == []
    (results.dir / "graph" / "masked.json").unlink()
    for show in (masked.removable, masked.dead_and_alive):
        assert isinstance(show(results), Missing)


def test_a_run_that_chooses_nothing_predicts_nothing(results):
    given = replace(results, sensitivity=[], prediction={"reason": "the mask is given"})
    for show in (graph_figures.sensitivity_map, graph_figures.predicted_frontier):
        assert "does not apply here: the mask is given" in repr(show(given))


def test_equality_with_the_masked_model_is_judged_at_1e_5(results):
    dense = results.verdict.sections["vs_dense"]
    for error, word in ((9e-6, "pass"), (2e-5, "fail")):
        section = replace(dense, max_rel_error={"float32": 1e-6, "float64": error})
        changed = replace(results.verdict, sections=results.verdict.sections | {"vs_dense": section})
        rows = {row[0]: row[1].word for row in measure_tables.controls(replace(results, verdict=changed)).rows[:4]}
        assert rows["every arm, the masked model, float64"] == word
        assert rows["every arm, the masked model, float32"] == "pass"


def test_a_mask_of_which_the_tables_predict_nothing_is_accepted_all_the_same(results):
    attempt = next(entry for entry in results.whole("linear") if entry.accepted)
    refused = replace(attempt, accepted=False)
    for entry, said in ((replace(attempt, strength=0.0), False), (replace(refused, strength=0.0), True)):
        solved = replace(results.solves["linear"], accepted_strength=0.0, attempts=[entry])
        changed = replace(results, solves=results.solves | {"linear": solved})
        assert any(line.startswith("Linear accepted nothing") for line in headline(changed)) == said
