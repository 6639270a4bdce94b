"""Where a table's access events come from, how they are split, and how a run keeps them."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from icd_lib.data.traces import shipped_trace
from icd_lib.errors import ArtifactError, ConfigError
from icd_lib.graph.events import Events
from icd_lib.run.artifacts import Run
from icd_lib.storage.atomic import atomic_write, sha256_file
from icd_lib.storage.npz import load_arrays

FILE = "setup/events.npz"


def load_events(get: Callable) -> tuple[Events, dict]:
    """The scenario's access events and where they come from; `get` reads the scenario."""
    return _planted(get) if get("workload.kind") == "mock" else _recorded(get)


def _planted(get: Callable) -> tuple[Events, dict]:
    from icd_lib.graph.mock import planted_events

    keys = ("blocks", "sizes", "events", "per_event", "noise", "burst")
    settings = {key: get(f"workload.{key}") for key in keys}
    events, _ = planted_events(
        get("workload.rows"), **settings, seed=get("seed"), nbytes=float(get("workload.row_bytes"))
    )
    words = ", ".join(f"{key} {value}" for key, value in settings.items())
    return events, {"name": "planted accesses", "source": f"icd_lib.graph.mock.planted_events ({words})"}


def _recorded(get: Callable) -> tuple[Events, dict]:
    """As many whole events of the trace as `workload.max_accesses` allows, from its start, in bounded memory."""
    from icd_lib.graph.trace import iter_events

    path, room = trace_path(get), get("workload.max_accesses")
    chunks, left = [], room
    for chunk in iter_events(path):
        whole = int(np.searchsorted(chunk.offsets, left, side="right")) - 1
        chunks.append(cut_events(chunk, 0, whole))
        left -= chunks[-1].accesses
        if whole < chunk.count:
            break
    events = join_events(chunks)
    if events.count < 2:
        raise ConfigError(
            f"workload.max_accesses of {room:,} takes in {events.count} event(s) of {path.name}; it needs at least two"
        )
    given = get("graph.trace") is not None
    return events, {
        "name": path.name,
        "source": "graph.trace" if given else "shipped with icd_lib, see docs/TRACES.md",
        "file_sha256": sha256_file(path),
        "cut_short": whole < chunk.count,
    }


def trace_path(get: Callable) -> Path:
    """The trace of the scenario, by default the shipped one."""
    return Path(get("graph.trace")) if get("graph.trace") is not None else shipped_trace()


def cut_events(events: Events, start: int, stop: int) -> Events:
    """Events start .. stop - 1."""
    first, last = events.offsets[start], events.offsets[stop]
    return Events(
        events.ids[first:last], events.offsets[start : stop + 1] - first, events.nbytes[start:stop], events.size
    )


def join_events(chunks: list[Events]) -> Events:
    """Chunks of one stream in their order; the last one knows the size."""
    before = np.cumsum([0] + [chunk.accesses for chunk in chunks])
    offsets = [chunk.offsets[1:] + start for chunk, start in zip(chunks, before[:-1], strict=True)]
    return Events(
        np.concatenate([chunk.ids for chunk in chunks]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([chunk.nbytes for chunk in chunks]),
        max(chunk.size for chunk in chunks),
    )


def split_events(events: Events, unseen_share: float) -> tuple[Events, Events]:
    """(seen, unseen): the first events, which layouts are solved on, and the last ones, which they never meet."""
    seen = min(max(round(events.count * (1 - unseen_share)), 1), events.count - 1)
    return cut_events(events, 0, seen), cut_events(events, seen, events.count)


def hash_events(events: Events) -> str:
    """sha256 of the events' arrays, the same on every machine."""
    digest = hashlib.sha256(f"{events.size} {events.count}".encode())
    for array, dtype in ((events.ids, "<i4"), (events.offsets, "<i8"), (events.nbytes, "<f8")):
        digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
    return digest.hexdigest()


def save_events(run: Run, events: Events) -> None:
    """Keep the events for the later stages."""
    buffer = io.BytesIO()
    np.savez(buffer, ids=events.ids, offsets=events.offsets, nbytes=events.nbytes, size=events.size)
    atomic_write(run.path(FILE), buffer.getvalue())


def read_events(run: Run) -> Events:
    """The events as the setup stage kept them; `ArtifactError` when the file is missing or damaged."""
    path = run.dir / FILE
    kept = load_arrays(path, {"ids": 1, "offsets": 1, "nbytes": 1, "size": 0})
    try:
        return Events(kept["ids"], kept["offsets"], kept["nbytes"], int(kept["size"]))
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); make it again with: {run.command()} --force") from error
