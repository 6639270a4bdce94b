"""points.jsonl: what is written is read, the last line counts, and a killed write is no line."""

import os

import pytest
from sweep_factory import done

from icd_lib.errors import (
    ArtifactError,
    AxisError,
    ConfigError,
    MeasureError,
    ResourceError,
    SolverTimeout,
    TransformError,
)
from icd_lib.run.artifacts import mend_log
from icd_lib.sweeps.outcome import FILE, Outcome, append_outcome, read_outcomes, status_of


def test_the_last_line_of_a_point_counts_and_figures_come_back(tmp_path):
    append_outcome(tmp_path, Outcome(point="a", status="failed", reason="it broke", code="E_MSR_401"))
    append_outcome(tmp_path, Outcome(point="b", status="not_run"))
    append_outcome(tmp_path, Outcome(point="a", **done(3.5, 0.1)))
    found = read_outcomes(tmp_path)
    assert found["a"].is_done and found["a"].arms["iterative"].latency_ms.value == 3.5 and found["a"].reason is None
    assert found["b"].status == "not_run" and read_outcomes(tmp_path / "gone") == {}


def test_a_line_that_a_kill_cut_off_is_none_and_is_mended_before_the_next(tmp_path):
    append_outcome(tmp_path, Outcome(point="a", status="done"))
    with open(tmp_path / FILE, "ab") as file:
        file.write(b'{"point": "b", "stat')
    assert set(read_outcomes(tmp_path)) == {"a"}
    mend_log(tmp_path / FILE)
    append_outcome(tmp_path, Outcome(point="c", status="failed", reason="x"))
    assert set(read_outcomes(tmp_path)) == {"a", "c"}


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / FILE).write_text('{"point": "a", "status": "done"}\n{]\n')
    with pytest.raises(ArtifactError, match="line 2 is not JSON"):
        read_outcomes(tmp_path)
    (tmp_path / FILE).write_text('{"point": "a", "status": "great"}\n')
    with pytest.raises(ArtifactError, match="line 1.*status"):
        read_outcomes(tmp_path)


def test_what_gives_a_person_away_is_not_kept(tmp_path):
    home = os.path.expanduser("~")
    append_outcome(tmp_path, Outcome(point="a", status="failed", reason=f"no file {home}/secret/x.py"))
    assert f"{home}/secret" not in (tmp_path / FILE).read_text()


@pytest.mark.parametrize("kind", [ConfigError, ResourceError, TransformError])
def test_what_cannot_be_had_here_is_not_measured(kind):
    assert status_of(kind("x")) == "not_measured"


@pytest.mark.parametrize("kind", [MeasureError, SolverTimeout, AxisError, ArtifactError])
def test_what_broke_failed(kind):
    assert status_of(kind("x")) == "failed"
