"""JSON as it is written: lists of numbers on one line, and the same value when it is read."""

import json

import pytest

from icd_lib.errors import ArtifactError
from icd_lib.storage.atomic import to_json

VALUES = [
    {"pi": [2, 0, 1], "ci95": [-1.5e-07, 2.0], "empty": [], "nested": [[1, 2], [3]], "mixed": [1, None, True]},
    {"texts": ["[\n1,\n2\n]", "a [ 1, 2 ] b", "{"], "after": [1]},
    [1, {"a": [1, {"b": [2, 3]}]}, ["x", 1], [0.5, "y"]],
    [-3],
]


@pytest.mark.parametrize("value", VALUES, ids=["numbers", "texts", "objects", "bare"])
def test_it_reads_back_as_it_was(value):
    assert json.loads(to_json(value)) == value


def test_numbers_stand_on_one_line_and_the_rest_on_lines_of_its_own():
    assert to_json({"D": 3, "pi": [2, 0, 1], "names": ["a"], "both": [[1, 2], [3, 4]]}).splitlines() == [
        "{",
        '  "D": 3,',
        '  "pi": [2, 0, 1],',
        '  "names": [',
        '    "a"',
        "  ],",
        '  "both": [',
        "    [1, 2],",
        "    [3, 4]",
        "  ]",
        "}",
    ]


def test_what_json_cannot_express_is_refused():
    with pytest.raises(ArtifactError, match="cannot express"):
        to_json([float("nan")])
