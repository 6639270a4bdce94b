"""What refuses a candidate, and what is written down about it."""

import json

import numpy as np
import pytest

from icd_lib.codesign.candidate import Candidate, mean_change, objections, record
from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.ladder import Rung
from icd_lib.codesign.layouts import LayoutChange
from icd_lib.codesign.options import Settings
from icd_lib.records.attempts import Attempt
from icd_lib.records.reasons import Reason
from icd_lib.solver.cost import CostReport
from icd_lib.storage.atomic import to_json
from icd_lib.storage.record_json import as_json, from_json
from icd_lib.transforms.sparsity.allocate import PrunePlan


def report(C=0.5, J=0.5):
    return CostReport(C=C, Q=0.1, R_align=0.2, R_stab=0.0, J=J)


def candidate(after=None, latency_rel=-0.2, drop_pp=0.0, se_pp=0.0):
    """A candidate on an axis whose layout had C = J = 0.5 before."""
    changes = {} if after is None else {"ffn.0": LayoutChange(report(), after)}
    judgement, plan = Judgement(drop_pp, se_pp), PrunePlan({}, latency_rel, 0.1)
    return Candidate(None, {"ffn.0": np.arange(8)}, -0.2, plan, judgement=judgement, changes=changes)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (candidate(), None),
        (candidate(report(C=0.4, J=0.4)), None),
        (candidate(report(C=0.5, J=0.5)), None),
        (candidate(report(C=0.6, J=0.7)), None),
        (candidate(latency_rel=-0.1), None),
        (candidate(latency_rel=-0.05), "a rise in latency"),
        (candidate(drop_pp=0.2), "exceeds the budget of 0.1 pp"),
        (candidate(drop_pp=0.05, se_pp=0.06), "with 1 standard errors that exceeds"),
        (candidate(drop_pp=0.05, se_pp=0.04), None),
    ],
)
def test_quality_and_latency_refuse_and_the_cost_of_a_layout_does_not(changed, reason):
    state = Candidate(None, {}, -0.1, PrunePlan({}, -0.1, 0.05))
    reasons = objections(Settings(selection_z=1.0), state, changed)
    assert len(reasons) == (reason is not None)
    assert reason is None or reason in reasons[0].text


def test_all_objections_are_told_at_once():
    state = Candidate(None, {}, -0.3, PrunePlan({}, -0.3, 0.05))
    assert len(objections(Settings(), state, candidate(drop_pp=1.0))) == 2
    assert len(objections(Settings(), None, candidate(drop_pp=1.0))) == 1, "a draft is compared with nothing"


def test_where_cost_and_tables_disagree_it_is_recorded():
    disagreeing = record(candidate(report(C=0.45, J=0.6)), Rung("attempt", -0.2), [])
    assert disagreeing.accepted and vars(disagreeing.change) == pytest.approx({"C": -0.05, "Q": 0.0, "J": 0.1})
    assert "J rose by 0.1000 (C by -0.0500)" in disagreeing.disagreement and "-20.0%" in disagreeing.disagreement
    for agreeing in (candidate(report(C=0.45, J=0.4)), candidate(report(J=0.6), latency_rel=0.0), candidate()):
        assert record(agreeing, Rung("attempt", -0.2), []).disagreement is None
    assert record(candidate(), Rung("attempt", -0.2), []).change is None, "nothing was laid out anew"


def test_an_attempt_is_recorded_with_its_fate():
    attempt = record(candidate(report(), drop_pp=0.3), Rung("draft", -0.2), [Reason("quality", "too much", 0.3, 0.1)])
    entry = as_json(attempt)
    assert list(entry) == [
        *("what", "strength", "accepted", "reasons", "why", "widths", "predicted_latency_rel", "predicted_loss"),
        *("validation", "change", "objective"),
    ], "the order of the file"
    assert from_json(Attempt, json.loads(to_json(attempt)), "a file") == attempt
    assert entry["why"] == [{"code": "quality", "value": 0.3, "limit": 0.1}]
    assert (entry["what"], entry["strength"], entry["accepted"], entry["reasons"]) == (
        "draft",
        -0.2,
        False,
        ["too much"],
    )
    assert entry["widths"] == {"ffn.0": 8} and entry["validation"] == {"drop_pp": 0.3, "se_pp": 0.0}
    assert entry["objective"]["ffn.0"]["before"] == vars(report())
    assert as_json(record(None, Rung("attempt", -0.9), [Reason("transform", "out of reach")])).keys() == {
        "what",
        "strength",
        "accepted",
        "reasons",
        "why",
    }


def test_a_change_is_the_mean_over_the_axes_that_lost_something():
    assert mean_change({}, "J") == 0.0
    layouts = {"a": LayoutChange(report(J=0.5), report(J=0.2)), "b": LayoutChange(report(J=0.4), report(J=0.5))}
    assert mean_change(layouts, "J") == pytest.approx(-0.1) and mean_change(layouts, "C") == 0.0
