"""Traces on disk: JSON lines of access events or `i,j,weight` triples, plain or gzip, read as a stream of `Events`.

One block of text and one chunk of events are held at a time, so a trace may be larger than memory.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.graph.events import Events, check_size
from icd_lib.graph.trace_lines import MAX_INFERRED_SIZE, parse_event, parse_triple
from icd_lib.paths import user_path

BLOCK_BYTES = 1 << 22
MAX_LINE_BYTES = 1 << 26
MAX_CHUNK_ACCESSES = 1 << 22
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TRIPLES_HEADER = b"i,j,weight"
_PARSERS = (parse_event, parse_triple)  # in the order of trace_kernels.EVENTS and TRIPLES


def iter_events(path, *, chunk_events: int = 65_536, size: int | None = None) -> Iterator[Events]:
    """Chunks of at most `chunk_events` events (fewer where events are large), in the order of the file.

    A line is an event, `{"t": 0, "ids": [3, 1], "bytes": 64}`, or a triple, `3,1,64.0` (an event of two ids), for all
    of the file alike; blank lines and a first line `i,j,weight` are skipped. Gzip is told by its first bytes. `size` is
    D; without it a chunk's size is one more than the largest id so far. Raises `ArtifactError` with the line number on
    a line that is malformed, cut short or has ids outside 0..D-1, and on a file without events.
    """
    if isinstance(chunk_events, bool) or not isinstance(chunk_events, int) or chunk_events < 1:
        raise ConfigError(f"chunk_events is an integer >= 1, got {chunk_events!r}")
    return _chunks(user_path(path), chunk_events, None if size is None else check_size(size))


def read_events(path, *, size: int | None = None) -> Events:
    """The whole trace, in memory: 4 bytes per access and 16 per event. Format and errors as `iter_events`."""
    chunks = list(iter_events(path, size=size))
    parts = [(chunk.ids, chunk.offsets, chunk.nbytes) for chunk in chunks]
    return Events(*_join(parts), chunks[-1].size)


def is_triples(path) -> bool:
    """Whether the trace holds triples, by its first line that is not blank; `ArtifactError` if it has none."""
    path = user_path(path)
    for _, text in _blocks(path):
        if text.strip():
            return _is_triples(text)
    raise _no_events(path)


def _chunks(path: Path, chunk_events: int, size: int | None) -> Iterator[Events]:
    kind, parts, waiting, accesses, largest, seen = None, [], 0, 0, 0, 0
    for line, text in _blocks(path):
        if kind is None:
            if not text.strip():
                continue
            kind = int(_is_triples(text))
            text = _without_header(text) if kind else text
        part = _parse_block(text, line, kind, size, path.name)
        parts.append(part)
        waiting, accesses, seen = waiting + len(part[2]), accesses + len(part[0]), seen + len(part[2])
        largest = max(largest, int(part[0].max(initial=0)))
        if waiting < chunk_events and accesses < MAX_CHUNK_ACCESSES:
            continue
        # Whole chunks leave; what is left over waits, unless its events are so large that they may not.
        ready = waiting if accesses >= MAX_CHUNK_ACCESSES else waiting - waiting % chunk_events
        whole, rest = _split(_join(parts), ready)
        yield from _cut(whole, chunk_events, size or largest + 1)
        parts, waiting, accesses = [rest], len(rest[2]), len(rest[0])
    if not seen:
        raise _no_events(path)
    yield from _cut(_join(parts), chunk_events, size or largest + 1)


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number of its first line, text) of blocks of whole lines, each line ended by a newline."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise ArtifactError(f"cannot read the trace {path}: {error.strerror}") from error
    line, text = 1, bytearray()
    with raw:
        try:
            stream = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP_MAGIC else raw
            while piece := stream.read1(BLOCK_BYTES):
                text += piece
                if len(text) < BLOCK_BYTES:
                    continue
                end = len(text) - len(piece) + piece.rfind(b"\n") + 1
                if b"\n" in piece:
                    yield line, bytes(text[:end]).removeprefix(_BYTE_ORDER_MARK if line == 1 else b"")
                    line += text.count(b"\n", 0, end)
                    del text[:end]
                elif len(text) > MAX_LINE_BYTES:
                    raise ArtifactError(
                        f"{path.name} line {line} is longer than {MAX_LINE_BYTES >> 20} MiB; is this a trace?"
                    )
        except (OSError, EOFError, zlib.error) as error:
            at = line + text.count(b"\n")
            raise ArtifactError(f"{path.name} line {at}: the file is damaged or cut short ({error})") from error
    if text:
        yield line, bytes(text).removeprefix(_BYTE_ORDER_MARK if line == 1 else b"") + b"\n"


def _parse_block(text: bytes, line: int, kind: int, size: int | None, name: str) -> tuple[np.ndarray, ...]:
    """(ids, offsets, nbytes) of a block of whole lines, the first of which is number `line`."""
    from icd_lib.graph import trace_kernels  # numba loads slowly, and only traces need it here

    lines = text.count(b"\n")
    ids = np.empty(len(text) // 2 + 1, np.int32)  # an id takes a digit and a separator
    offsets, nbytes = np.zeros(lines + 1, np.int64), np.empty(lines)
    buffer, limit = np.frombuffer(text, np.uint8), size or MAX_INFERRED_SIZE
    at = events = 0
    while True:
        at, events, read = trace_kernels.read_lines(buffer, at, kind, limit, ids, offsets, nbytes, events)
        line += read
        if at == len(text):
            break
        end = text.index(b"\n", at)
        found, nbytes[events] = _PARSERS[kind](text[at:end], f"{name} line {line}", size)
        first = offsets[events]
        offsets[events + 1] = first + len(found)
        ids[first : first + len(found)] = found
        at, events, line = end + 1, events + 1, line + 1
    return ids[: offsets[events]].copy(), offsets[: events + 1].copy(), nbytes[:events].copy()


def _join(parts: list[tuple]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One (ids, offsets, nbytes) of several."""
    before = np.cumsum([0] + [len(ids) for ids, _, _ in parts])
    later = [offsets[1:] + start for (_, offsets, _), start in zip(parts, before[:-1], strict=True)]
    ids, nbytes = (np.concatenate([part[k] for part in parts]) for k in (0, 2))
    return ids, np.concatenate([np.zeros(1, np.int64), *later]), nbytes


def _split(part: tuple, events: int) -> tuple[tuple, tuple]:
    """The first `events` events and the rest."""
    ids, offsets, nbytes = part
    at = offsets[events]
    first = ids[:at], offsets[: events + 1], nbytes[:events]
    return first, (ids[at:].copy(), offsets[events:] - at, nbytes[events:].copy())


def _cut(part: tuple, chunk_events: int, size: int) -> Iterator[Events]:
    ids, offsets, nbytes = part
    for first in range(0, len(nbytes), chunk_events):
        last = min(first + chunk_events, len(nbytes))
        start, end = offsets[first], offsets[last]
        yield Events(ids[start:end], offsets[first : last + 1] - start, nbytes[first:last], size)


def _is_triples(text: bytes) -> bool:
    return text.lstrip()[:1] != b"{"


def _without_header(text: bytes) -> bytes:
    """The text with a first line `i,j,weight` blanked, so that lines keep their numbers."""
    head, newline, rest = text.lstrip().partition(b"\n")
    skipped = text[: len(text) - len(text.lstrip())]
    return skipped + newline + rest if head.replace(b" ", b"").strip() == _TRIPLES_HEADER else text


def _no_events(path: Path) -> ArtifactError:
    return ArtifactError(f"the trace {path.name} has no events; record at least one line")
