"""Texts of one's own: lines of a .txt, one field of a .jsonl or .csv, read as a stream, of which a sample is kept."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

from icd_lib.errors import ConfigError
from icd_lib.paths import user_path

FIELDS = ("text", "sentence", "content", "body")  # looked for in this order where no field is named
LONGEST = 10_000  # characters of a text that are read; a model sees far fewer
LONGEST_LINE = 8 * 2**20  # bytes of a line that has to be read whole, an object or a row


def sample_texts(path: str | Path, most: int, seed: int = 0, field: str | None = None) -> list[str]:
    """At most `most` different texts of a file, every one as likely as any other; the same for the same seed.

    A file of any size is read once, from front to back, and only the sample is held. Raises `ConfigError` for a file
    that is not there, is no UTF-8 text, has no such field, or holds no text at all.
    """
    file = user_path(path)
    if not file.is_file():
        raise ConfigError(f"{path} is no file; give one text a line (.txt), or a .jsonl or .csv with a field of text")
    generator, kept, places, seen = random.Random(seed), [], {}, 0
    for text in _texts(file, field):
        if not text or text in places:
            continue
        seen += 1
        if len(kept) < most:
            places[text] = len(kept)
            kept.append(text)
        elif (place := generator.randrange(seen)) < most:
            del places[kept[place]]
            places[text] = place
            kept[place] = text
    if not kept:
        raise ConfigError(f"{path} holds no text; give one text a line")
    return kept


def _texts(file: Path, field: str | None) -> Iterator[str]:
    """Every text of a file, white space reduced to single spaces."""
    reader = {".jsonl": _of_json, ".json": _of_json, ".ndjson": _of_json, ".csv": _of_csv}.get(file.suffix.lower())
    raw = _lines(file) if reader is None else reader(file, field)
    for text in raw:
        yield " ".join(text[:LONGEST].split())


def _lines(file: Path) -> Iterator[str]:
    """The lines; of one that is longer than `LONGEST` characters the front, so that no line fills the memory."""
    with file.open("rb") as stream:
        number = 0
        while piece := stream.readline(4 * LONGEST):
            number += 1
            while not piece.endswith(b"\n") and (rest := stream.readline(4 * LONGEST)):
                if rest.endswith(b"\n"):
                    break
            yield _decoded(piece, file, number)


def _decoded(line: bytes, file: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        if error.end == len(line) and len(line) == 4 * LONGEST:  # a character that the cut went through
            return line[: error.start].decode("utf-8")
        raise ConfigError(
            f"line {number} of {file.name} is not UTF-8 (byte {line[error.start]:#x}); convert the file, for example "
            f"iconv -f LATIN1 -t UTF-8 {file.name}"
        ) from error


def _of_json(file: Path, field: str | None) -> Iterator[str]:
    for number, line in enumerate(_whole_lines(file), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ConfigError(
                f"line {number} of {file.name} is no JSON ({error}); a .jsonl has one object a line"
            ) from error
        yield entry if isinstance(entry, str) else _field(entry, field, file, number)


def _whole_lines(file: Path) -> Iterator[str]:
    """The lines; `ConfigError` for one that is longer than `LONGEST_LINE`, which cannot be cut and still be read."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise ConfigError(
                    f"line {number} of {file.name} is longer than {LONGEST_LINE // 2**20} MiB; give one object or row "
                    "a line, and long texts as a .txt"
                )
            yield _decoded(line, file, number)


def _of_csv(file: Path, field: str | None) -> Iterator[str]:
    reader = csv.DictReader(_whole_lines(file))
    try:
        for row in reader:
            yield _field(row, field, file, reader.line_num)
    except csv.Error as error:
        raise ConfigError(f"line {reader.line_num + 1} of {file.name} cannot be read as CSV ({error})") from error


def _field(entry: object, field: str | None, file: Path, number: int) -> str:
    """The text of an object or a row: the named field, or the first of `FIELDS` that is there."""
    names = FIELDS if field is None else (field,)
    if isinstance(entry, dict):
        for name in names:
            if isinstance(entry.get(name), str):
                return entry[name]
        has = ", ".join(str(name) for name in list(entry)[:8])
    else:
        has = f"a {type(entry).__name__}"
    raise ConfigError(
        f"line {number} of {file.name} has no text in {' or '.join(names)} (it has {has}); name its field with --field"
    )
