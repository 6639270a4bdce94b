"""Figures keep value, unit, kind, n and method together, and refuse what contradicts itself."""

import json

import numpy as np
import pytest

from icd_lib.metric import figure, not_measured
from icd_lib.storage.atomic import to_json


def test_a_measured_figure_keeps_everything_and_is_plain_json():
    item = figure(np.float32(1.5), "ms", "measured", n=np.int64(60), method="median", ci95=np.array([1.25, 1.75]))
    assert json.loads(to_json(item)) == {
        "value": 1.5,
        "unit": "ms",
        "kind": "measured",
        "n": 60,
        "method": "median",
        "ci95": [1.25, 1.75],
    }


def test_not_measured_carries_its_reason_and_no_value():
    item = not_measured("J/token", "no RAPL")
    assert item.value is None and item.is_missing and item.reason == "no RAPL"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1.0, "ms", "guessed"), "kind"),
        ((None, "ms", "measured"), "exactly"),
        ((1.0, "ms", "not_measured"), "exactly"),
        ((None, "ms", "not_measured"), "reason"),
        ((float("nan"), "ms", "measured"), "finite"),
        ((float("inf"), "ms", "modelled"), "finite"),
        (("1", "ms", "measured"), "number"),
        ((True, "ms", "measured"), "number"),
    ],
)
def test_contradictions_are_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        figure(*arguments)


def test_a_reversed_interval_is_refused():
    with pytest.raises(ValueError, match="low, high"):
        figure(1.0, "ms", "measured", ci95=(2, 1))
