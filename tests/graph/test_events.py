"""Access events: what is accepted, what is refused by name, and what keep() leaves."""

import numpy as np
import pytest

from icd_lib.errors import ConfigError, SolverNotConverged
from icd_lib.graph import Events


def example():
    return Events(np.array([2, 0, 2, 1, 3]), np.array([0, 3, 3, 5]), np.array([64, 8, 4.0]), 4)


def test_counts_and_dtypes():
    events = example()
    assert (events.count, events.accesses, events.size) == (3, 5, 4)
    assert (events.ids.dtype, events.offsets.dtype, events.nbytes.dtype) == (np.int32, np.int64, np.float64)
    assert events.event_of_access().tolist() == [0, 0, 0, 2, 2]


def test_keep_leaves_the_living_accesses_of_every_event():
    kept = example().keep(np.array([True, True, False, True]))
    assert kept.ids.tolist() == [0, 1, 3] and kept.offsets.tolist() == [0, 1, 1, 3]
    assert kept.size == 4 and kept.nbytes.tolist() == [64, 8, 4]


def test_no_events_are_events():
    assert Events(np.array([], int), np.array([0]), np.array([]), 1).count == 0


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"ids": [2, 0, 2, 1, 4]}, SolverNotConverged, "event 2 touches id 4, outside 0..3"),
        ({"ids": [-1, 0, 2, 1, 3]}, SolverNotConverged, "event 0 touches id -1"),
        ({"ids": [0.0, 1, 2, 1, 3]}, SolverNotConverged, "ids are a 1-D integer array, got float64"),
        ({"ids": [[0, 1]]}, SolverNotConverged, r"shape \(1, 2\)"),
        ({"nbytes": [1, np.nan, 1]}, SolverNotConverged, r"nbytes\[1\] = nan"),
        ({"nbytes": [1, 1, -2]}, SolverNotConverged, r"nbytes\[2\] = -2"),
        ({"nbytes": ["a", "b", "c"]}, SolverNotConverged, "1-D array of numbers"),
        ({"offsets": [0, 3, 5]}, SolverNotConverged, "3 events need 4 offsets, got 3"),
        ({"offsets": [0, 4, 3, 5]}, SolverNotConverged, r"offsets\[2\] = 3 is below offsets\[1\]"),
        ({"offsets": [0, 3, 3, 4]}, SolverNotConverged, "from 0 to 5, got 0 to 4"),
        ({"size": 0}, ConfigError, "D, an integer"),
        ({"size": True}, ConfigError, "D, an integer"),
        ({"size": 2**31}, ConfigError, "D, an integer"),
    ],
)
def test_refusals(changed, error, message):
    good = {"ids": [2, 0, 2, 1, 3], "offsets": [0, 3, 3, 5], "nbytes": [64, 8, 4], "size": 4}
    with pytest.raises(error, match=message):
        Events(**{name: value if name == "size" else np.array(value) for name, value in (good | changed).items()})


def test_keep_refuses_a_mask_of_another_axis():
    with pytest.raises(SolverNotConverged, match=r"bool of shape \(4,\)"):
        example().keep(np.ones(5, bool))
