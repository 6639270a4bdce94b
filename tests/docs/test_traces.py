"""docs/TRACES.md: its recording example runs and its traces make graphs; the figures it states are true."""

import re
from pathlib import Path

import numpy as np

import icd_lib as icd
from icd_lib.data.traces import shipped_trace
from icd_lib.graph import read_events
from icd_lib.graph.coaccess import LEAST_EDGES, CoaccessStream
from icd_lib.graph.trace_file import BLOCK_BYTES, MAX_CHUNK_ACCESSES, MAX_LINE_BYTES
from icd_lib.graph.trace_lines import MAX_INFERRED_SIZE

PAGE = (Path(__file__).parents[2] / "docs" / "TRACES.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_recording_example_runs_and_its_traces_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = next(block for block in BLOCKS if "register_forward_hook" in block)
    names = {}
    exec(compile(example, "TRACES.md", "exec"), names)
    rows, neurons = read_events("rows.jsonl.gz"), read_events("neurons.jsonl.gz", size=64)
    assert rows.count == neurons.count == 80 and rows.accesses == 80 * 12 and rows.size <= 100
    W = icd.build_w("neurons.jsonl.gz", size=64)
    alive = np.zeros((80, 64))
    alive[neurons.event_of_access(), neurons.ids] = 1
    expected = alive.T @ alive * 64
    np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(W.toarray(), expected)


def test_the_first_example_lays_the_shipped_trace_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "\n".join(f'{{"ids": [{k % 8}, {(k + 4) % 8}], "bytes": 4}}' for k in range(40))
    (tmp_path / "my_trace.jsonl.gz").write_text(text)
    names = {}
    exec(compile(BLOCKS[0], "TRACES.md", "exec"), names)
    assert sorted(names["pi"]) == list(range(8)) and names["said"]["events"] == 40
    assert names["W"][1, 5] == 10 * 4 and names["W"].nnz == 8


def test_the_figures_are_true():
    events = read_events(shipped_trace())
    for figure in (events.count, events.accesses, events.size):
        assert f"{figure:,}" in PAGE
    assert f"({round(shipped_trace().stat().st_size / 1000)} kB)" in PAGE
    assert (BLOCK_BYTES, MAX_LINE_BYTES, MAX_INFERRED_SIZE) == (4 << 20, 64 << 20, 1 << 26)
    assert MAX_CHUNK_ACCESSES == 1 << 22 and LEAST_EDGES == 10_000_000
    assert CoaccessStream().max_event_ids == 256
