"""The comparison of two versions: what counts as a difference, and what a clock decides."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from same_results import differences, facts, leaves  # noqa: E402


def test_leaves_are_named_by_their_path():
    assert leaves({"a": [1, {"b": None}], "c": {}}) == {"/a[0]": 1, "/a[1]/b": None, "/c": {}}


def test_facts_of_a_run_are_json_leaves_hashes_and_names(tmp_path):
    (tmp_path / "verdict.json").write_text(json.dumps({"x": 1}))
    (tmp_path / "stages.json").write_text("{}")
    (tmp_path / "W.npz").write_bytes(b"1")
    (tmp_path / "index.html").write_text("<p>")
    found = facts(tmp_path)
    assert found["verdict.json:/x"] == 1 and found["stages.json"] == found["index.html"] == "there"
    assert len(found["W.npz"]) == 64


def test_what_two_runs_of_one_version_agree_on_has_to_stay():
    old = {"same": 1, "clock": 2, "gone": 3}
    again = {"same": 1, "clock": 5, "gone": 3}
    told = differences(old, again, {"same": 2, "clock": 9, "new": 1})
    assert told == ["gone: gone", "new: new", "differs: same: 1 is now 2"]
    assert differences(old, again, old) == []
