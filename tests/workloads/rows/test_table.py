"""The table workload: where rows land, and a checksum that no layout can change."""

import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.errors import AxisError, ConfigError
from icd_lib.graph.events import Events
from icd_lib.graph.mock import planted_events
from icd_lib.workloads.rows import TableRunner, TableWorkload, address_stream, place_rows
from icd_lib.workloads.rows.table import row_contents

D = 12
MASK = 2**64 - 1


def make_events(lists, size=D) -> Events:
    offsets = np.cumsum([0] + [len(ids) for ids in lists])
    return Events(np.array(sum(lists, []), dtype=np.int32), offsets, np.full(len(lists), 16.0), size)


EVENTS = make_events([[0, 5, 5], [], [11, 2], [7], [3, 8, 1, 0]])


@st.composite
def masked_layouts(draw):
    size = draw(st.integers(1, 40))
    pi = draw(st.permutations(range(size)))
    alive = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return np.array(pi), np.array(alive), draw(st.integers(1, 9))


@settings(max_examples=200, deadline=None)
@given(case=masked_layouts())
def test_rows_follow_the_layout_and_skip_dead_tiles(case):
    pi, alive, g = case
    expected, row = np.full(len(pi), -1), 0
    for start in range(0, len(pi), g):
        tile = pi[start : start + g]
        if alive[tile].any():
            expected[tile] = np.arange(row, row + len(tile))
            row += len(tile)
    rows, count = place_rows(pi, alive, g)
    assert rows.tolist() == expected.tolist()
    assert count == row


def test_a_three_cycle_is_placed_in_its_own_direction():
    # A swap is its own inverse and would hide a confusion of old and new.
    rows, count = place_rows(np.array([1, 2, 0]), np.ones(3, dtype=bool), 1)
    assert (rows.tolist(), count) == ([2, 0, 1], 3)


def test_unusable_layouts_and_masks_are_refused():
    everything = np.ones(3, dtype=bool)
    with pytest.raises(AxisError, match="appears more than once"):
        place_rows(np.array([0, 0, 1]), everything, 1)
    with pytest.raises(AxisError, match="3 elements but the permutation has 2"):
        place_rows(np.array([0, 1]), everything, 1)
    with pytest.raises(AxisError, match="bool array"):
        place_rows(np.arange(3), np.array([1, 1, 0]), 1)
    with pytest.raises(ConfigError, match="g, the elements per tile"):
        place_rows(np.arange(3), everything, 0)


def checksum_ref(workload: TableWorkload) -> int:
    """The checksum from its definition, in Python's own integers, without any table."""
    words, checksum = workload.row_bytes // 8, 0
    for first, last in zip(workload.events.offsets, workload.events.offsets[1:], strict=False):
        total = checksum
        for element in workload.events.ids[first:last]:
            total += sum(int(word) for word in row_contents(np.array([element]), words)[0])
        checksum = total * 0x9E3779B97F4A7C15 & MASK
    return checksum >> 11


@settings(max_examples=60, deadline=None)
@given(
    pi=st.permutations(range(D)),
    alive=st.lists(st.booleans(), min_size=D, max_size=D),
    g=st.integers(1, 5),
    row_bytes=st.sampled_from([8, 16, 24, 64]),
    chained=st.booleans(),
)
def test_no_layout_changes_the_checksum(pi, alive, g, row_bytes, chained):
    alive = np.array(alive)
    workload = TableWorkload(EVENTS, row_bytes, chained).keep(alive)
    rows, count = place_rows(np.array(pi), alive, g)
    runner = TableRunner(workload, rows)
    assert runner() == runner() == checksum_ref(workload)
    assert runner.table_bytes == count * row_bytes


def test_the_checksum_sees_every_access_and_their_order_between_events():
    everything = place_rows(np.arange(D), np.ones(D, dtype=bool), 4)[0]

    def checksum(lists):
        return TableRunner(TableWorkload(make_events(lists)), everything)()

    lists = [[0, 5, 5], [11, 2], [7]]
    assert checksum(lists) == checksum([[5, 0, 5], [2, 11], [7]])
    assert checksum(lists) != checksum([[0, 5], [11, 2], [7]])
    assert checksum(lists) != checksum([[0, 5, 5], [11, 3], [7]])
    assert checksum(lists) != checksum([[11, 2], [0, 5, 5], [7]])


def test_rows_of_different_elements_differ():
    contents = row_contents(np.arange(5000), 2)
    assert len(np.unique(contents)) == contents.size


def test_the_table_starts_on_a_page_so_that_tiles_are_lines():
    runner = TableRunner(TableWorkload(EVENTS), place_rows(np.arange(D), np.ones(D, dtype=bool), 4)[0])
    assert runner._arguments[0].ctypes.data % mmap.PAGESIZE == 0


def test_addresses_are_rows_in_order_of_the_accesses():
    rows, _ = place_rows(np.arange(D)[::-1].copy(), np.ones(D, dtype=bool), 4)
    addresses = address_stream(TableWorkload(EVENTS, row_bytes=24), rows)
    assert addresses.dtype == np.int64
    assert addresses.tolist() == [24 * (D - 1 - i) for i in EVENTS.ids]


def test_an_access_to_a_removed_row_is_refused():
    alive = np.arange(D) < 4
    rows, _ = place_rows(np.arange(D), alive, 4)
    with pytest.raises(AxisError, match="element 5 is accessed but has no row"):
        TableRunner(TableWorkload(EVENTS), rows)
    assert TableRunner(TableWorkload(EVENTS).keep(alive), rows)() > 0


def test_rows_of_another_table_are_refused():
    with pytest.raises(AxisError, match="12 whole numbers"):
        address_stream(TableWorkload(EVENTS), np.arange(5))
    with pytest.raises(AxisError, match="float64"):
        address_stream(TableWorkload(EVENTS), np.zeros(D))


def test_a_workload_without_accesses_runs():
    nothing = TableWorkload(make_events([[], []]))
    assert TableRunner(nothing, np.full(D, -1))() == 0


@pytest.mark.parametrize("row_bytes", [0, 4, 12, 16.0, True])
def test_row_sizes_are_whole_words(row_bytes):
    with pytest.raises(ConfigError, match="row_bytes"):
        TableWorkload(EVENTS, row_bytes)


def test_chained_is_a_flag():
    with pytest.raises(ConfigError, match="chained"):
        TableWorkload(EVENTS, 16, "yes")


def test_keep_drops_the_accesses_to_dead_elements_only():
    left = TableWorkload(EVENTS, 32, False).keep(np.arange(D) != 5)
    assert (left.row_bytes, left.chained) == (32, False)
    assert left.events.ids.tolist() == [0, 11, 2, 7, 3, 8, 1, 0]


def test_a_burst_of_planted_events_stays_in_one_block():
    events, order = planted_events(400, blocks=10, events=90, per_event=6, noise=0.0, burst=9, seed=3)
    block = np.argsort(order)[events.ids] // 40
    by_burst = block.reshape(10, -1)
    assert (by_burst == by_burst[:, :1]).all()
    assert len(np.unique(by_burst[:, 0])) > 2
