"""JSON read back: a value, or a `ValueError`, whatever the text says."""

import json
import math
import os
from pathlib import Path

from icd_lib.errors import ArtifactError

MAX_BYTES = 2**28  # a permutation of a hundred million elements fits; nothing larger is a file of ours


def parse_text(text: str | bytes):
    """The value of a JSON text; `ValueError` for anything else, also for what is nested beyond reason.

    >>> parse_text('{"D": 2}')
    {'D': 2}
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_text(path: Path | str):
    """The value of a JSON file of at most `MAX_BYTES`, with or without a byte-order mark.

    Raises `ValueError` as `parse_text`, `OSError` if it cannot be read.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) if size <= MAX_BYTES else b""
    if size > MAX_BYTES or len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
    return parse_text(data.decode("utf-8-sig"))


def parse_json(text: str | bytes, name: str):
    """JSON without duplicate keys, NaN or infinity; `ArtifactError` that names the file."""

    def once(pairs: list) -> dict:
        made = dict(pairs)
        if len(made) != len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"key {next(k for k in keys if keys.count(k) > 1)!r} is given twice")
        return made

    def constant(word: str):
        raise ValueError(f"{word} is no JSON number")

    def finite(word: str) -> float:
        if not math.isfinite(number := float(word)):
            raise ValueError(f"{word} is too large")
        return number

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=constant, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{name} is truncated, tampered with or not JSON ({error})") from error
