"""One line of a trace, read slowly and strictly: what a line may say, and what is wrong with it when it may not.

The compiled reader of `trace_kernels` takes the common shape of a line and leaves every other line to this module, so
that there is one definition of the format and one place that raises.
"""

import json
import math
import re

from icd_lib.errors import ArtifactError
from icd_lib.graph.events import MAX_SIZE

# What a trace may infer D from; a larger one must be meant, so `size` has to be given.
MAX_INFERRED_SIZE = 1 << 26
_TRIPLE = re.compile(rb"\s*(\d+)\s*,\s*(\d+)\s*,\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_SHOWN = 60


def parse_event(line: bytes, where: str, size: int | None) -> tuple[list[int], float]:
    """(ids, bytes) of `{"t": 0, "ids": [3, 1], "bytes": 64}`; "t" is optional, other keys are left to their writer.

    Raises `ArtifactError`, starting with `where`, on anything else and on ids outside 0..size-1.
    """
    try:
        event = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where}: not a JSON object ({error}): {_show(line)}; is the line cut short?") from error
    if not isinstance(event, dict):
        raise ArtifactError(f'{where}: expected an object like {{"t": 0, "ids": [3, 1], "bytes": 64}}: {_show(line)}')
    missing = [key for key in ("ids", "bytes") if key not in event]
    if missing:
        raise ArtifactError(f"{where}: the event has no {missing[0]!r}: {_show(line)}")
    ids = event["ids"]
    if not isinstance(ids, list):
        raise ArtifactError(f"{where}: 'ids' is a list of element numbers, got {_show(ids)}")
    for element in ids:
        _check_id(element, where, size)
    if not _is_number(event.get("t", 0)):
        raise ArtifactError(f"{where}: 't' is a number, got {_show(event['t'])}")
    return ids, _check_bytes(event["bytes"], where, "bytes")


def parse_triple(line: bytes, where: str, size: int | None) -> tuple[list[int], float]:
    """(ids, bytes) of `3,1,64.0`: elements 3 and 1 are touched together, 64 bytes in all. Errors as `parse_event`."""
    match = _TRIPLE.fullmatch(line)
    if not match:
        raise ArtifactError(f"{where}: expected 'i,j,weight' with i, j >= 0, got {_show(line)}; is the line cut short?")
    i, j, weight = match.groups()
    try:
        ids = [int(i), int(j)]
    except ValueError as error:  # more digits than Python converts
        raise ArtifactError(f"{where}: {error}") from error
    for element in ids:
        _check_id(element, where, size)
    return ids, _check_bytes(float(weight), where, "weight")


def _check_id(element, where: str, size: int | None) -> None:
    if isinstance(element, bool) or not isinstance(element, int):
        raise ArtifactError(f"{where}: an id is an integer, got {_show(element)}")
    if size is not None and not 0 <= element < size:
        raise ArtifactError(f"{where}: id {_show(element)} is outside 0..{size - 1}")
    if not 0 <= element < MAX_SIZE:
        raise ArtifactError(f"{where}: id {_show(element)} is outside 0..{MAX_SIZE - 1}")
    if size is None and element >= MAX_INFERRED_SIZE:
        raise ArtifactError(
            f"{where}: id {element} would make an axis of {element + 1} elements; number the elements from 0 without "
            "gaps, or give size"
        )


def _check_bytes(value, where: str, name: str) -> float:
    if not _is_number(value):
        raise ArtifactError(f"{where}: {name!r} is a finite number, got {_show(value)}")
    if value < 0:
        raise ArtifactError(f"{where}: {name!r} is negative: {_show(value)}")
    return float(value)


def _is_number(value) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a number of JSON")


def _show(value) -> str:
    text = value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else repr(value)
    return repr(text[:_SHOWN] + "..." if len(text) > _SHOWN else text) if isinstance(value, bytes) else text[:_SHOWN]
