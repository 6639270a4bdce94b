"""W of a trace: from a file, from events, and from the trace that ships with the project."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from icd_lib.data.traces import shipped_trace
from icd_lib.errors import ArtifactError, ConfigError, ResourceError, SolverNotConverged
from icd_lib.graph import build_w, check_w, hash_graph, iter_events, planted_events, read_events, trace_graph
from icd_lib.solver import CostConfig, evaluate_cost


def record(path, events):
    ends = zip(events.offsets[:-1], events.offsets[1:], events.nbytes, strict=True)
    lines = [json.dumps({"t": t, "ids": events.ids[a:b].tolist(), "bytes": n}) for t, (a, b, n) in enumerate(ends)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_a_file_its_events_and_their_chunks_give_the_same_bytes(tmp_path):
    events, _ = planted_events(80, events=400, per_event=6)
    path = record(tmp_path / "trace", events)
    graphs = [
        trace_graph(path, window=3),
        trace_graph(str(path), window=3, size=80),
        trace_graph(events, window=3),
        build_w(iter_events(path, chunk_events=7), kind="trace", window=3),
        build_w(read_events(path), window=3),
    ]
    assert len({hash_graph(W) for W in graphs}) == 1


def test_triples_add_up_in_either_direction_and_diagonals_do_not_count(tmp_path):
    path = tmp_path / "triples.csv"
    path.write_text("i,j,weight\n0,2,1.5\n2,0,0.5\n1,1,9\n2,1,4")
    assert trace_graph(path).toarray().tolist() == [[0, 0, 2.0], [0, 0, 4.0], [2.0, 4.0, 0]]
    with pytest.raises(ConfigError, match="no order in time"):
        trace_graph(path, window=2)


def test_size_leaves_room_for_elements_that_were_never_touched(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("0,1,2.0")
    assert trace_graph(path).shape == (2, 2) and trace_graph(path, size=9).shape == (9, 9)
    with pytest.raises(ArtifactError, match="line 1: id 1 is outside 0..0"):
        trace_graph(path, size=1)
    with pytest.raises(SolverNotConverged, match="size is 2, but the events are of an axis of 80"):
        trace_graph(planted_events(80, events=5)[0], size=2)
    check_w(trace_graph(planted_events(80, events=5)[0], size=90))


def test_normalized_traces_hold_the_contract():
    events, _ = planted_events(50, events=200, per_event=5)
    for how in ("row", "sym"):
        W = trace_graph(events, normalize=how)
        assert check_w(W).nnz == trace_graph(events).nnz
    with pytest.raises(ConfigError, match="did you mean 'sym'"):
        trace_graph(events, normalize="symm")


def test_the_planted_order_of_a_stream_is_good_for_its_graph():
    """A graph that lost the stream's structure would not tell the planted order from another."""
    events, order = planted_events(256, blocks=8, events=4000, per_event=8)
    cost = CostConfig(k=8)
    planted, identity = (evaluate_cost(trace_graph(events), pi, cost) for pi in (order, np.arange(256)))
    assert planted.Q > identity.Q + 0.4 and planted.C < 0.6 * identity.C


def test_the_shipped_trace_is_what_its_script_makes():
    from scripts.make_embedding_rows import embedding_rows

    with gzip.open(shipped_trace()) as file:
        assert file.read() == embedding_rows()
    assert shipped_trace().stat().st_size < 600_000
    assert shipped_trace().read_bytes()[4:8] == bytes(4)  # gzip's time stamp
    with pytest.raises(ResourceError, match=r"no trace 'rows'.*embedding_rows"):
        shipped_trace("rows")


def test_the_shipped_trace_makes_a_graph():
    events = read_events(shipped_trace())
    assert (events.count, events.size) == (7941, 5182) and set(events.nbytes) == {1536.0}
    assert np.bincount(events.ids, minlength=events.size).min() > 0  # every row is read
    W, meta = build_w(shipped_trace(), return_meta=True)
    assert meta["exact"] and W.nnz == 200_000 and meta["dropped_edges"] > 0
    # [CLS] is in every event and [SEP] too: their edge is the heaviest.
    assert W.max() == 7941 * 1536.0 == W[0, 1]


STREAMED = """
import resource, sys
from icd_lib.graph import trace_graph
trace_graph(sys.argv[1])  # everything is compiled and loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
W = trace_graph(sys.argv[2])
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, W.sum())
"""


def test_a_trace_is_never_held_in_memory(tmp_path):
    """140 MB of text, 112 MB of events: the peak may grow by a block of text and a chunk of events only."""
    block = "".join(f'{{"ids":[{k % 97},{100 + k % 89},200],"bytes":1}}\n' for k in range(100_000)).encode()
    small, large = tmp_path / "small.gz", tmp_path / "large.gz"
    small.write_bytes(gzip.compress(block, 1))
    large.write_bytes(gzip.compress(block, 1) * 40)  # members of one gzip stream
    done = subprocess.run([sys.executable, "-c", STREAMED, small, large], capture_output=True, text=True, check=True)
    before, after, total = done.stdout.split()
    assert float(total) == 40 * 100_000 * 3 * 2
    assert int(after) - int(before) < 60_000  # kB
