"""What a layout of a table costs: figures whose values follow from the layout by hand."""

import numpy as np
import pytest

from icd_lib.errors import ConfigError
from icd_lib.graph.events import Events
from icd_lib.graph.mock import planted_events
from icd_lib.measure.cache_sim import CacheLevel
from icd_lib.workloads.rows import TableWorkload, measure_layouts, place_rows, simulate_table

# One line; two lines.
LEVELS = [CacheLevel("L1d", 64, 64, 1), CacheLevel("L2", 128, 64, 2)]
SIZE = 16


def pairs_workload(row_bytes=16) -> TableWorkload:
    """Every event reads elements e and e + 8, for e = 0..7."""
    ids = np.column_stack([np.arange(8), np.arange(8) + 8]).ravel().astype(np.int32)
    return TableWorkload(Events(ids, np.arange(0, 17, 2), np.full(8, 16.0), SIZE), row_bytes)


def figures_of(pi, alive=None, workload=None):
    alive = np.ones(SIZE, dtype=bool) if alive is None else alive
    workload = workload or pairs_workload()
    return simulate_table(workload.keep(alive), place_rows(pi, alive, 4)[0], LEVELS)


def test_hits_follow_from_the_layout():
    together = np.column_stack([np.arange(8), np.arange(8) + 8]).ravel()
    apart = figures_of(np.arange(SIZE))
    # In the given order, rows e and e + 8 lie two lines apart: the one line of L1 never helps, and the two of L2 do
    # after each of the four lines was fetched once.
    assert apart["l1d_hit_pct"].value == 0
    assert apart["l2_hit_pct"].value == pytest.approx(100 * (1 - 4 / 16))
    # Side by side, both events of a line follow each other: one miss for four reads.
    beside = figures_of(together)
    assert beside["l1d_hit_pct"].value == beside["l2_hit_pct"].value == 75
    assert beside["energy_j"].value < apart["energy_j"].value
    assert {entry.kind for entry in (apart["l1d_hit_pct"], apart["l2_hit_pct"])} == {"simulated"}
    assert apart["energy_j"].kind == "modelled"
    assert apart["l1d_hit_pct"].n == 16


def test_compaction_saves_first_touches():
    alive = np.arange(SIZE) % 4 == 0  # one living element in each of the four tiles
    scattered = figures_of(np.arange(SIZE), alive)
    packed = figures_of(np.argsort(~alive, kind="stable"), alive)
    assert scattered["l2_hit_pct"].value == 0
    assert packed["l2_hit_pct"].value == 75


def test_rows_wider_than_a_line_count_for_each_line():
    figures = figures_of(np.arange(SIZE), workload=pairs_workload(row_bytes=128))
    assert figures["l1d_hit_pct"].n == 32
    assert figures["l1d_hit_pct"].value == 0


def test_a_workload_without_accesses_has_no_figures():
    with pytest.raises(ConfigError, match="no access left"):
        figures_of(np.arange(SIZE), np.zeros(SIZE, dtype=bool))


def test_measure_layouts_gives_one_result_for_every_layout():
    events, order = planted_events(64, blocks=4, events=50, per_event=4, seed=1)
    workload, alive = TableWorkload(events), np.arange(64) % 3 > 0
    ticks = []
    measure = measure_layouts(
        workload, alive, 4, LEVELS, repeats=3, warmup=1, progress=lambda done, total: ticks.append((done, total))
    )
    results = measure([np.arange(64), order])
    assert [len(result["latency_ms"]) for result in results] == [3, 3]
    assert min(results[0]["latency_ms"] + results[1]["latency_ms"]) > 0
    assert ticks[-1] == (4, 4)
    for pi, result in zip((np.arange(64), order), results, strict=True):
        expected = simulate_table(workload.keep(alive), place_rows(pi, alive, 4)[0], LEVELS)
        assert result["l1_hit_pct"] == expected["l1d_hit_pct"].value
        assert result["l2_hit_pct"] == expected["l2_hit_pct"].value
        assert result["energy_j"] == expected["energy_j"].value
    assert results[0]["energy_j"] != results[1]["energy_j"]


def test_with_one_level_there_is_no_second_to_hit():
    measure = measure_layouts(pairs_workload(), np.ones(SIZE, dtype=bool), 4, LEVELS[:1], repeats=1, warmup=0)
    assert measure([np.arange(SIZE)])[0]["l2_hit_pct"] is None
