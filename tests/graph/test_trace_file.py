"""Reading traces: both formats, plain and gzip, in chunks; every fault named with its line."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icd_lib.errors import ArtifactError, ConfigError, IcdError
from icd_lib.graph import iter_events, read_events, trace_file, trace_kernels
from icd_lib.graph.trace_lines import parse_event, parse_triple


def write(folder, text, name="trace.jsonl"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def event(ids, nbytes=64, t=0):
    return json.dumps({"t": t, "ids": ids, "bytes": nbytes})


def as_lists(events):
    return [events.ids[a:b].tolist() for a, b in zip(events.offsets[:-1], events.offsets[1:], strict=True)]


def test_json_lines(tmp_path):
    text = "\n".join([event([3, 1, 3]), "", event([], 2.5, 1), '  {"bytes":1,"ids":[ 0 ,2],"op":"add"} \r'])
    events = read_events(write(tmp_path, text))
    assert as_lists(events) == [[3, 1, 3], [], [0, 2]]
    assert events.nbytes.tolist() == [64, 2.5, 1] and events.size == 4


def test_triples_with_and_without_a_header(tmp_path):
    for head in ("", "i,j,weight\n", "\n i, j, weight\r\n"):
        events = read_events(write(tmp_path, head + "3,1,64.5\n0,0,1e-3\r\n 2 , 1 , 7"))
        assert as_lists(events) == [[3, 1], [0, 0], [2, 1]] and events.nbytes.tolist() == [64.5, 1e-3, 7]


def test_gzip_and_byte_order_mark_are_told_by_the_first_bytes(tmp_path):
    text = event([1, 2]) + "\n" + event([0]) + "\n"
    plain = read_events(write(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    packed = read_events(write(tmp_path, gzip.compress(text.encode()), "trace.bin"))
    assert as_lists(plain) == as_lists(packed) == [[1, 2], [0]]


def test_long_timestamps_and_exponents_are_numbers(tmp_path):
    text = '{"t":1700000000123456789,"ids":[1],"bytes":6.4e1}\n{"t":-1.5,"ids":[0],"bytes":0.1}'
    assert read_events(write(tmp_path, text)).nbytes.tolist() == [64.0, 0.1]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_chunks_are_the_file_cut_after_so_many_events(tmp_path, chunk, monkeypatch):
    monkeypatch.setattr(trace_file, "BLOCK_BYTES", 100)  # lines straddle blocks
    lists = [list(range(k % 7)) for k in range(40)]
    path = write(tmp_path, "\n".join(event(ids) for ids in lists))
    chunks = list(iter_events(path, chunk_events=chunk))
    assert [ids for part in chunks for ids in as_lists(part)] == lists
    assert all(part.count == chunk for part in chunks[:-1]) and chunks[-1].count <= chunk
    assert chunks[-1].size == 6 and {part.size for part in iter_events(path, size=9)} == {9}


def test_large_events_make_smaller_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_file, "BLOCK_BYTES", 100)
    monkeypatch.setattr(trace_file, "MAX_CHUNK_ACCESSES", 50)
    path = write(tmp_path, "\n".join(event(list(range(20))) for _ in range(30)))
    chunks = list(iter_events(path))
    assert sum(part.count for part in chunks) == 30 and max(part.accesses for part in chunks) < 100


GOOD = event([1, 2])
EVENT_FAULTS = [
    (GOOD[:-7], "not a JSON object"),
    ('{"t": 0, "ids": [1, 2', "not a JSON object"),
    ("[1, 2]", "expected an object"),
    ('{"t": 0, "bytes": 4}', "the event has no 'ids'"),
    ('{"t": 0, "ids": [1]}', "the event has no 'bytes'"),
    ('{"ids": 1, "bytes": 4}', "'ids' is a list"),
    (event([1, -1]), "id -1 is outside 0..9"),
    (event([1, 10]), "id 10 is outside 0..9"),
    (event([1, 2**40]), "id 1099511627776 is outside 0..9"),
    (event([1.0]), "an id is an integer, got 1.0"),
    (event([True]), "an id is an integer, got True"),
    (event([None]), "an id is an integer, got None"),
    (event([1], -4), "'bytes' is negative: -4"),
    (event([1], "64"), "'bytes' is a finite number, got '64'"),
    (event([1], float("nan")), "NaN is not a number of JSON"),
    ('{"ids": [1], "bytes": 1e999}', "'bytes' is a finite number, got inf"),
    ('{"t": "now", "ids": [1], "bytes": 1}', "'t' is a number"),
    ('{"ids": [01], "bytes": 1}', "not a JSON object"),
    ("[" * 100_000, "not a JSON object"),
    ('{"ids": [' + "9" * 5000 + '], "bytes": 1}', "not a JSON object"),
    ("1,2,3.0", "expected an object|not a JSON object"),
]
TRIPLE_FAULTS = [
    ("1,2", "expected 'i,j,weight'"),
    ("1,2,", "expected 'i,j,weight'"),
    ("1,2,x", "expected 'i,j,weight'"),
    ("1,2,nan", "expected 'i,j,weight'"),
    ("1,-2,3", "expected 'i,j,weight'"),
    ("1,10,3", "id 10 is outside 0..9"),
    ("1,2,-3", "'weight' is negative"),
    ("1,2,1e999", "'weight' is a finite number"),
    ("1;2;3", "expected 'i,j,weight'"),
    ("1" * 5000 + ",2,3", "digits"),
    (event([1, 2]), "expected 'i,j,weight'"),
]


@pytest.mark.parametrize(("line", "message"), EVENT_FAULTS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_faulty_event_is_named_with_its_line(tmp_path, line, message, packed):
    text = "\n".join([GOOD, "", GOOD, line, GOOD]).encode()
    path = write(tmp_path, gzip.compress(text) if packed else text)
    with pytest.raises(ArtifactError, match=rf"trace.jsonl line 4: .*({message})"):
        read_events(path, size=10)


@pytest.mark.parametrize(("line", "message"), TRIPLE_FAULTS)
def test_a_faulty_triple_is_named_with_its_line(tmp_path, line, message):
    path = write(tmp_path, "\n".join(["i,j,weight", "3,1,2.5", line]))
    with pytest.raises(ArtifactError, match=rf"trace.jsonl line 3: .*{message}"):
        read_events(path, size=10)


def test_a_cut_last_line_and_a_cut_gzip_are_found(tmp_path):
    text = "\n".join(event([k % 50, 7, k % 13]) for k in range(5000)) + "\n"
    with pytest.raises(ArtifactError, match="line 5000: not a JSON object"):
        read_events(write(tmp_path, text[:-9]))
    packed = gzip.compress(text.encode())
    for damaged in (packed[: len(packed) // 2], packed[:-4], packed[:-8] + b"12345678", packed[:2]):
        with pytest.raises(ArtifactError, match=r"line \d+: the file is damaged or cut short"):
            read_events(write(tmp_path, damaged))


def test_an_id_without_size_cannot_make_a_monstrous_axis(tmp_path):
    path = write(tmp_path, event([5, 2**30]))
    with pytest.raises(ArtifactError, match="line 1: id 1073741824 would make an axis.*give size"):
        read_events(path)
    assert read_events(path, size=2**31 - 1).ids.tolist() == [5, 2**30]


def test_missing_empty_and_endless_files(tmp_path, monkeypatch):
    with pytest.raises(ArtifactError, match="cannot read the trace .*No such file"):
        read_events(tmp_path / "none.jsonl")
    with pytest.raises(ArtifactError, match="cannot read the trace"):
        read_events(tmp_path)
    for empty in ("", "\n \n", "i,j,weight\n", gzip.compress(b"")):
        with pytest.raises(ArtifactError, match="has no events"):
            read_events(write(tmp_path, empty))
    monkeypatch.setattr(trace_file, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(trace_file, "MAX_LINE_BYTES", 5000)
    with pytest.raises(ArtifactError, match="line 2 is longer than"):
        read_events(write(tmp_path, GOOD + "\n" + "1" * 20_000))
    with pytest.raises(ConfigError, match="chunk_events"):
        iter_events(tmp_path, chunk_events=0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**34) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
events_of_json = st.fixed_dictionaries(
    {},
    optional={
        "t": st.integers(0, 10**20) | st.floats(0, 1e6) | json_values,
        "ids": st.lists(st.integers(0, 12), max_size=6) | json_values,
        "bytes": st.integers(0, 10**17) | st.floats(0, 1e20) | st.decimals(0, 999, places=3).map(float) | json_values,
        "op": json_values,
    },
)
spacing = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :\r")])
numbers = st.integers(0, 12).map(str) | st.text("0123456789.eE+- ", max_size=20)
lines = (
    st.tuples(events_of_json, spacing).map(lambda pair: json.dumps(pair[0], separators=pair[1]))
    | st.tuples(events_of_json, st.integers(0, 60)).map(lambda pair: json.dumps(pair[0])[: pair[1]])
    | st.tuples(numbers, numbers, numbers).map(",".join)
    | st.text('{}[]",:tidsbye0123456789.eE+- \t\r', max_size=30)
)


@settings(deadline=None)  # the first call compiles
@given(lines, st.sampled_from([trace_kernels.EVENTS, trace_kernels.TRIPLES]))
def test_the_compiled_reader_accepts_nothing_that_the_strict_one_does_not(line, kind):
    """Whatever the fast path reads, the slow one reads the same; what it does not know, it leaves alone."""
    text = np.frombuffer((line + "\n").encode(), np.uint8)
    ids, offsets, nbytes = np.empty(len(text), np.int32), np.zeros(2, np.int64), np.zeros(1)
    _, events, _ = trace_kernels.read_lines(text, 0, kind, 10, ids, offsets, nbytes, 0)
    if events:
        parse = (parse_event, parse_triple)[kind]
        expected = parse(line.encode(), "line 1", 10)
        assert (ids[: offsets[1]].tolist(), nbytes[0]) == expected


@settings(deadline=None)  # the first call compiles
@given(st.lists(lines, max_size=5), st.binary(max_size=30), st.booleans())
def test_no_text_raises_anything_but_our_errors(tmp_path_factory, some, tail, packed):
    data = "\n".join(some).encode() + tail
    path = write(tmp_path_factory.getbasetemp(), gzip.compress(data, 1) if packed else data, "fuzz")
    try:
        events = read_events(path, size=10)
    except IcdError as error:
        assert "fuzz" in str(error)
    else:
        assert events.count > 0 and events.ids.max(initial=0) < 10 and np.isfinite(events.nbytes).all()


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=200))
def test_a_damaged_gzip_raises_our_error_or_reads(tmp_path_factory, noise):
    packed = bytearray(gzip.compress((GOOD + "\n").encode() * 50))
    for k, byte in enumerate(noise):
        packed[(k * 7919) % len(packed)] ^= byte
    try:
        read_events(write(tmp_path_factory.getbasetemp(), bytes(packed), "fuzz.gz"))
    except IcdError as error:
        assert "fuzz.gz" in str(error)


def test_the_compiled_reader_really_reads_the_common_shape():
    """Else every line would go the slow way and nobody would notice."""
    for line, kind in (
        (GOOD, 0),
        ('{"op":"ffn.0","ids":[],"layer": 3,"bytes":8}', 0),
        ('{"ids":[0,1],"bytes":1536.5,"t":12}', 0),
        ("1,2,0.125", 1),
    ):
        text = np.frombuffer((line + "\n").encode(), np.uint8)
        ids, offsets, nbytes = np.empty(len(text), np.int32), np.zeros(2, np.int64), np.zeros(1)
        assert trace_kernels.read_lines(text, 0, kind, 10, ids, offsets, nbytes, 0)[1] == 1
