"""report.csv: one row a point, also of those that did not end well, and nothing that a spreadsheet would run."""

import csv
import io

from sweep_factory import write_sweep

from icd_lib.sweeps.rows import columns_of, sweep_csv

FACTORS = {"rate": ["0.3", "=1+1"]}
POINTS = {
    "a": ({"rate": "0.3"}, (10.0, 0.05, 900)),
    "b": ({"rate": "=1+1"}, {"status": "not_measured", "reason": "-no such length"}),
}


def test_every_point_is_a_row_of_the_same_columns(tmp_path):
    result = write_sweep(tmp_path / "s", POINTS, FACTORS)
    first, second = csv.DictReader(io.StringIO(sweep_csv(result)))
    assert list(first) == columns_of(result)
    assert (first["point"], first["iterative_latency_ms"], first["iterative_latency_ms_low"]) == ("a", "10.0", "9.9")
    assert first["iterative_quality_drop_pp_kind"] == "measured" and first["on_frontier"] == "True"
    assert (second["status"], second["iterative_latency_ms"], second["command"]) == (
        "not_measured",
        "",
        "python run_all.py b",
    )
    assert second["reason"] == "'-no such length" and second["factor.rate"] == "'=1+1"
