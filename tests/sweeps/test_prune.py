"""Which points are stopped by what they, or weaker ones, lost."""

import pytest

from icd_lib.sweeps.options import PruneOptions
from icd_lib.sweeps.plan import sweep_of
from icd_lib.sweeps.prune import ruled_out, too_much

GRID = {"transform.dead_share": [0.3, 0.5, 0.7], "codesign.max_rounds": [1, 2]}
MADE = sweep_of({"base": "mock", "grid": GRID}, "mine")
BY = {tuple(point.levels.values()): point for point in MADE.points}
ALONG = ("transform.dead_share",)


@pytest.mark.parametrize(("lost", "stops"), [((1.3, 0.1), True), ((1.1, 0.1), False), ((0.2, 0.0), False)])
def test_a_loss_counts_by_the_near_end_of_its_interval(lost, stops):
    reason = too_much(lost, PruneOptions(max_drop_pp=1.0))
    assert (reason is not None) == stops and (not stops or "+1.300 ± 0.100 pp" in reason and "more than 1 pp" in reason)


def test_what_was_not_judged_is_not_stopped():
    assert too_much(None, PruneOptions()) is None


def test_a_stronger_form_of_a_point_that_lost_too_much_is_ruled_out_and_nothing_else():
    lost = [BY["0.5", "1"]]
    ruled = {levels for levels, point in BY.items() if ruled_out(point, lost, ALONG, MADE.factors)}
    assert ruled == {("0.7", "1")}
    both = ("transform.dead_share", "codesign.max_rounds")
    ruled = {levels for levels, point in BY.items() if ruled_out(point, lost, both, MADE.factors)}
    assert ruled == {("0.5", "2"), ("0.7", "1"), ("0.7", "2")}
    assert ruled_out(BY["0.7", "1"], lost, (), MADE.factors) is None
