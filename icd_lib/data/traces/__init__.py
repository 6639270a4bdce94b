"""Traces that ship with the project; docs/TRACES.md says what is in them and how to record others."""

from pathlib import Path

from icd_lib.errors import ResourceError

_FOLDER = Path(__file__).parent


def shipped_trace(name: str = "embedding_rows") -> Path:
    """Path of the shipped trace `name`; `ResourceError` names those there are.

    >>> shipped_trace().name
    'embedding_rows.jsonl.gz'
    """
    path = _FOLDER / f"{name}.jsonl.gz"
    if not path.is_file():
        there = sorted(p.name.removesuffix(".jsonl.gz") for p in _FOLDER.glob("*.jsonl.gz"))
        raise ResourceError(f"no trace {name!r} is shipped; there are {there}. Give the path of your own instead")
    return path
