"""What runs of one sweep leave for each other: found under the same key on the same machine, and only in the sweep."""

import pytest

from icd_lib.execute.sweep import shared_folder
from icd_lib.run import shared
from icd_lib.run.artifacts import open_run
from icd_lib.run.shared import keep_shared, once_in_sweep, read_shared


@pytest.fixture
def run(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 1\n")
    return open_run(tmp_path / "mine.yaml", [], out=tmp_path / "sweep")


def test_a_value_is_made_once_for_a_key_in_a_sweep_and_each_time_outside(run, tmp_path, monkeypatch):
    made = []

    def make():
        made.append(len(made))
        return {"number": len(made), "share": 0.1 + 0.2}

    def once(of):
        return once_in_sweep(run, "sort", {"of": of}, make)

    assert [once("a"), once("a")] == [({"number": n, "share": 0.1 + 0.2}, False) for n in (1, 2)]
    with shared_folder(tmp_path / "sweep"):
        assert once("a") == ({"number": 3, "share": 0.1 + 0.2}, False)
        assert once("a") == ({"number": 3, "share": 0.1 + 0.2}, True)
        assert once("b")[0]["number"] == 4
        monkeypatch.setattr(shared, "this_machine", lambda: "another")
        assert once("a") == ({"number": 5, "share": 0.1 + 0.2}, False), "another machine's is not taken"
    with shared_folder(tmp_path / "sweep"):
        assert once("a")[1] is False, "nothing outlives the sweep"


def test_outside_a_sweep_nothing_is_left(run):
    keep_shared(run, "sort", {"of": "a"}, {"number": 1})
    assert read_shared(run, "sort", {"of": "a"}) is None
