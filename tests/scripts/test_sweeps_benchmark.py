"""benchmarks/sweeps.py: its simulation against cases known by hand, and the page holds the table of its figures."""

import json
import sys
from pathlib import Path

import pytest

from icd_lib.paths import project_root

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import sweeps  # noqa: E402
from sweeps_scheduling import simulate, simulate_all  # noqa: E402

COSTS = {"task_s": 0.003, "ask_s": 0.004, "ask_s_a_worker": 1e-4}


@pytest.mark.parametrize(
    ("workers", "parts", "busy"),
    [
        (10, (0.0, 60.0, 0.0), 1.0),  # nothing is timed: all are busy
        (8, (10.0, 0.0, 10.0), 1 / 8),  # nothing is solved: one of a machine's eight is
        (8, (10.0, 80.0, 10.0), 100 / (8 * 30.0)),  # a point: 20 s timed alone, and 10 s of all eight
        (16, (10.0, 80.0, 10.0), 100 / (8 * 30.0)),  # two machines are no slower than one
    ],
)
def test_without_costs_the_simulation_is_what_the_parts_add_up_to(workers, parts, busy):
    assert simulate(workers, parts, 0.0) == pytest.approx(busy)


def test_a_scheduler_that_is_slower_than_its_workers_sets_the_pace():
    workers, task_s = 100, 1.0
    assert simulate(workers, (0.0, 10.0, 0.0), task_s) == pytest.approx(10.0 / (workers * task_s) / 3, rel=0.1)


def test_more_workers_lose_more_to_the_scheduler():
    for case in simulate_all(COSTS)["cases"]:
        lost = [size["ideal"] / size["efficiency"] for size in case["sizes"]]
        assert lost == sorted(lost) and lost[0] >= 1


def test_the_page_has_the_table_of_the_kept_figures():
    kept = json.loads((project_root() / "docs" / "figures" / "sweeps.json").read_text(encoding="utf-8"))
    assert sweeps.table(kept) in sweeps.PAGE.read_text(encoding="utf-8")
    assert sweeps.table({}).count("not measured") == len(sweeps.PARTS)
