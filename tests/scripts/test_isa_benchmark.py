"""The benchmark of both states of AMX: without AMX nothing is measured; with it pairs come from two processes."""

import json
import sys
from pathlib import Path

import pytest

from icd_lib.errors import MeasureError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import isa

SERVER = """
import json, os, sys
print(json.dumps(["eager|dense|1x8", "eager|iterative|1x8"]), flush=True)
for line in sys.stdin:
    print({"AVX2": 3_000_000}.get(os.environ.get("ONEDNN_MAX_CPU_ISA"), 2_000_000), flush=True)
"""


def test_without_amx_nothing_is_measured_and_the_reason_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(isa, "cpu_flags", lambda: {"avx512_vnni"})
    assert isa.main([str(tmp_path / "none"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == "not_measured: this processor has no AMX"
    kept = json.loads((tmp_path / isa.FILE).read_text())["without_vs_with"]
    assert kept["kind"] == "not_measured" and kept["value"] is None and kept["reason"] == isa.NO_AMX


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Processes that answer as the states do, slower where instructions end at AVX2."""

    def set_to(code):
        script = tmp_path / "server.py"
        script.write_text(code)
        monkeypatch.setattr(isa, "__file__", str(script))

    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")  # whatever is set here, the first state is without
    set_to(SERVER)
    return set_to


def test_both_states_answer_in_pairs(tmp_path, server):
    found = isa.compare_states(tmp_path, ["eager"], "AVX2", rounds=6, warmup=1)
    item = found["cases"]["eager|iterative|1x8"]
    assert {name: one.value for name, one in item["latency_ms"].items()} == {isa.WITH: 2.0, isa.WITHOUT: 3.0}
    assert item["without_vs_with"].value == pytest.approx(0.5) and item["without_vs_with"].n == 6
    assert "| eager | dense | 1x8 | 2.00 | 3.00 | " in isa.table(found)


def test_a_process_that_ends_is_an_error_of_the_measurement(tmp_path, server):
    server("import sys; sys.exit(3)")
    with pytest.raises(MeasureError, match="exit code 3"):
        isa.State(tmp_path, ["eager"], None)
