"""Which strength comes after which."""

import pytest

from icd_lib.codesign.ladder import Ladder, middle
from icd_lib.codesign.options import Settings

STRENGTHS = (-0.1, -0.2, -0.3, -0.4, -0.5)


def climbed(holds, *, drafts=True, decisive=False, onward=True, **changes):
    """What a ladder hands out when an attempt or a draft is accepted where `holds(what, strength)`."""
    settings = Settings(**({"strengths": STRENGTHS, "max_rounds": 9} | changes))
    ladder = Ladder(settings, drafts=drafts, decisive=decisive, onward=onward)
    rung, found = ladder.next(), []
    while rung is not None:
        found.append((rung.what, rung.strength))
        rung = ladder.next(accepted=holds(rung.what, rung.strength))
    assert ladder.next(True) is None, "a ladder that has ended stays so"
    return found


def test_drafts_find_the_strongest_and_attempts_go_on_from_it():
    assert climbed(lambda what, strength: strength >= -0.4) == [
        ("draft", -0.3),
        ("draft", -0.4),
        ("draft", -0.5),
        ("attempt", -0.4),
        ("attempt", -0.5),
    ]


def test_attempts_go_weaker_until_one_holds_and_stronger_from_there():
    found = climbed(lambda what, strength: what == "draft" or strength >= -0.2)
    assert found[3:] == [("attempt", strength) for strength in (-0.5, -0.4, -0.3, -0.2, -0.3)]


def test_what_was_refused_is_tried_again_only_from_a_better_start():
    def holds(what, strength):
        return strength >= -0.2

    assert climbed(holds, drafts=False) == [("attempt", strength) for strength in (-0.3, -0.2, -0.3)]
    assert climbed(holds, drafts=False, onward=False) == [("attempt", strength) for strength in (-0.3, -0.2)]


def test_a_decisive_draft_leaves_one_attempt():
    assert climbed(lambda what, strength: strength >= -0.2, decisive=True)[-1] == ("attempt", -0.2)
    assert climbed(lambda what, strength: strength >= -0.2)[-1] == ("attempt", -0.3)


def test_without_drafts_attempts_begin_in_the_middle():
    assert climbed(lambda what, strength: False, drafts=False) == [("attempt", s) for s in (-0.3, -0.2, -0.1)]
    assert climbed(lambda what, strength: True, drafts=False) == [("attempt", s) for s in (-0.3, -0.4, -0.5)]


@pytest.mark.parametrize("most", [1, 2])
def test_rounds_count_attempts_only(most):
    found = climbed(lambda what, strength: what == "draft", max_rounds=most)
    assert [what for what, _ in found].count("attempt") == most and len(found) == 3 + most


@pytest.mark.parametrize("accepted", [True, False])
def test_a_latency_target_is_aimed_at_in_two_steps(accepted):
    found = climbed(lambda what, strength: accepted, latency_target_rel=-0.3)
    assert found == [("attempt", -0.15), ("attempt", -0.3)]


def test_the_middle_of_a_ladder():
    assert [middle(list(STRENGTHS[:count])) for count in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]
