"""What a candidate's quality must keep."""

import pytest

from icd_lib.codesign.budget import over_budget
from icd_lib.codesign.inputs import Judgement
from icd_lib.codesign.options import Settings


@pytest.mark.parametrize(("cosine", "refused"), [(0.949, True), (0.951, False), (None, False)])
def test_fidelity_is_part_of_the_budget(cosine, refused):
    settings = Settings(min_cosine=0.95)
    reasons = over_budget(Judgement(-1.0, 0.1, {} if cosine is None else {"cosine": cosine}), settings)
    assert bool(reasons) == refused
    assert not refused or "0.9490 is below 0.95" in reasons[0].text


@pytest.mark.parametrize(
    ("budget", "z", "drop", "se", "refused"),
    [
        (0.5, 1.0, 0.4, 0.09, False),
        (0.5, 1.0, 0.4, 0.11, True),
        (0.5, 0.0, 0.4, 0.11, False),
        (0.5, 2.0, 0.4, 0.06, True),
        (None, 2.0, 9.0, 0.1, False),
        (0.0, 0.0, 0.01, 0.0, True),
    ],
)
def test_the_drop_in_has_a_budget_of_its_own(budget, z, drop, se, refused):
    settings = Settings(dropin_budget_pp=budget, selection_z=z)
    reasons = over_budget(Judgement(-1.0, 0.0, {"dropin": {"drop_pp": drop, "se_pp": se}}), settings)
    assert bool(reasons) == refused
    assert not refused or reasons[0].text.startswith(
        f"drop-in quality lost {drop:+.3f} ± {se:.3f} pp; with {z:g} standard"
    )
    assert over_budget(Judgement(-1.0, 0.0), settings) == [], "a judge that knows no drop-in is not asked for it"


@pytest.mark.parametrize(("z", "refused"), [(0.0, False), (0.9, False), (1.1, True)])
def test_a_strength_is_chosen_with_so_many_standard_errors_of_safety(z, refused):
    settings = Settings(selection_z=z, quality_budget_pp=0.3)
    assert Judgement(0.2, 0.1).bound(z) == pytest.approx(0.2 + 0.1 * z)
    assert bool(over_budget(Judgement(0.2, 0.1), settings)) == refused
    both = over_budget(Judgement(0.9, 0.1, {"cosine": 0.5, "dropin": {"drop_pp": 2.0, "se_pp": 0.1}}), settings)
    assert len(both) == 1, "what has no budget is not judged"


def test_a_figure_that_is_no_number_keeps_no_budget():
    settings = Settings(dropin_budget_pp=1.0, min_cosine=0.5, max_perplexity_ratio=1.1)
    nothing = float("nan")
    detail = {"dropin": {"drop_pp": nothing, "se_pp": 0.1}, "cosine": nothing, "perplexity_ratio": nothing}
    assert len(over_budget(Judgement(nothing, 0.0, detail), settings)) == 4
    assert len(over_budget(Judgement(0.0, nothing), settings)) == 1


def test_a_reason_says_what_was_compared():
    (reason,) = over_budget(Judgement(0.3, 0.1), Settings(selection_z=1.0, quality_budget_pp=0.1))
    assert (reason.code, reason.value, reason.limit) == ("quality", pytest.approx(0.4), 0.1)
    (nothing,) = over_budget(Judgement(float("nan"), 0.0), Settings())
    assert nothing.to_json() == {"code": "quality", "value": None, "limit": Settings().quality_budget_pp}
