"""Clean one file of a run, by its kind; what cannot be cleaned is refused with its name and what is in it."""

import base64
import binascii
import html
import itertools
import json
import re
import struct
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from icd_lib.errors import ArtifactError
from icd_lib.scrub.rules import RULES, Rule
from icd_lib.scrub.text import find_leaks, is_version, plain_placeholders, scrub_html, scrub_strings, scrub_text
from icd_lib.storage.json_text import parse_json

PAGES = (".html", ".htm", ".svg")
LINES = (".log", ".jsonl")
# A licence must be passed on as it was written, with the address its author put there.
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "COPYRIGHT")
# A notebook's metadata that ICD needs; the rest (authors, accounts, editors' notes) is dropped.
_NOTEBOOK_KEEPS = ("kernelspec", "language_info", "papermill")
_CELL_KEEPS = ("tags", "papermill", "collapsed", "scrolled", "jupyter", "execution")
_DATA_URI = re.compile(r"data:([\w/+.-]+)(?:;[\w=-]+)*;base64,([A-Za-z0-9+/=\s]+)")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{24,}={0,2}")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))")
_APART = "\n\0\n"  # between texts that do not belong together
_PNG = b"\x89PNG\r\n\x1a\n"


def scrub_file(name: str, data: bytes) -> bytes:
    """The bytes of the file `name`, cleaned; the same bytes where there was nothing to clean.

    JSON, notebooks, pages, logs (a JSON object a line) and other UTF-8 text are cleaned, PNG images are checked.
    `ArtifactError` names the file and what it holds if it is of another kind, not readable, or still leaks after
    cleaning (a leak in base64 or spelled in entities cannot be replaced where it stands).
    """
    path = PurePosixPath(name)
    if path.suffix == ".png":
        check_image(name, data)
        return data
    text = _decode(name, data)
    if path.suffix == ".json":
        clean = _scrub_json(text, scrub_strings, name)
    elif path.suffix == ".ipynb":
        clean = _scrub_json(text, lambda value: scrub_notebook(value, name), name)
    elif path.suffix in LINES:
        parts = [_scrub_part(part, name) for part in _log_parts(text)]
        clean = "".join(part for part, _ in parts), _APART.join(shown for _, shown in parts)
    elif path.suffix in PAGES:
        clean = (scrub_html(text),) * 2
    elif _is_licence(path):
        check_clean(name, text, may_hold=("e-mail address",))
        return data
    else:
        clean = (scrub_text(text),) * 2
    clean, shown = clean
    check_clean(name, shown)
    return data if clean == text else clean.encode()


def check_file(name: str, data: bytes) -> None:
    """Raise `ArtifactError` if a file leaks what is known on sight on any machine; nothing is changed."""
    path = PurePosixPath(name)
    if path.suffix == ".png":
        return check_image(name, data)
    text = _decode(name, data)
    if path.suffix in (".json", ".ipynb"):
        text = _APART.join(_strings(parse_json(text, name)))
    elif path.suffix in LINES:
        text = _APART.join(_part_text(part, name) for part in _log_parts(text))
    return check_clean(name, text, ("e-mail address",) if _is_licence(path) else (), RULES)


def check_clean(name: str, text: str, may_hold: tuple[str, ...] = (), rules: tuple[Rule, ...] | None = None) -> None:
    """Raise `ArtifactError` if `text` still leaks, as it stands or decoded; the message does not repeat the secret."""
    for how, shown in _readings(text):
        for what, at in find_leaks(shown, rules):
            if what not in may_hold:
                line = shown.count("\n", 0, at) + 1
                raise ArtifactError(f"{name} cannot be cleaned: it holds a {what} ({how}, line {line}); remove it")
    for match in _DATA_URI.finditer(text):
        _check_embedded(name, match[1], match[2])


def check_image(name: str, data: bytes) -> None:
    """Raise `ArtifactError` unless `data` is a PNG whose comments give nothing away."""
    if not data.startswith(_PNG):
        raise ArtifactError(f"{name} cannot be cleaned: it is no PNG image")
    at = len(_PNG)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + size > len(data):
            raise ArtifactError(f"{name} cannot be cleaned: the image is truncated")
        if kind in (b"tEXt", b"iTXt", b"zTXt", b"eXIf"):
            for text in _comments(name, kind, data[at + 8 : at + 8 + size]):
                check_clean(f"{name} (comment of the image)", text)
        at += 12 + size
        if kind == b"IEND":
            break
    if at != len(data):
        raise ArtifactError(f"{name} cannot be cleaned: something follows the image, or it is truncated")


def scrub_notebook(notebook, name: str = "notebook"):
    """A notebook with sources, outputs, attachments and metadata cleaned; raises `ArtifactError` on a bad image."""
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ArtifactError(f"{name} is no notebook: it has no list of cells")
    kept = _only(notebook.get("metadata"), _NOTEBOOK_KEEPS)
    cells = [
        cell | {"metadata": _only(cell.get("metadata"), _CELL_KEEPS)} if isinstance(cell, dict) else cell
        for cell in notebook["cells"]
    ]
    return _walk(notebook | {"metadata": kept, "cells": cells}, name)


def _is_licence(path: PurePosixPath) -> bool:
    return path.suffix in ("", ".txt", ".md") and path.name.upper().startswith(LICENCES)


def _only(metadata, keys: tuple[str, ...]) -> dict:
    return {key: item for key, item in metadata.items() if key in keys} if isinstance(metadata, dict) else {}


def _walk(value, name: str, key: str = ""):
    """`scrub_strings`, but texts that a notebook keeps in lines are cleaned whole, and images are checked."""
    if isinstance(value, dict):
        cleaned = scrub_strings({k: None for k in value})
        return {new: _walk(item, name, old) for new, (old, item) in zip(cleaned, value.items(), strict=True)}
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value) and key != "tags":
        whole = "".join(value)
        clean = _clean_text(whole, key, name)
        return value if clean == whole else clean.splitlines(keepends=True)
    if isinstance(value, list):
        return [_walk(item, name, key) for item in value]
    if isinstance(value, str):
        return _clean_text(value, key, name)
    return value


def _clean_text(text: str, key: str, name: str) -> str:
    if key.startswith(("image/p", "image/j", "image/g")):
        _check_embedded(name, key, text)
        return text
    return scrub_html(text) if key in ("text/html", "image/svg+xml") else scrub_strings({key: text}).popitem()[1]


def _check_embedded(name: str, kind: str, encoded: str) -> None:
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ArtifactError(f"{name} cannot be cleaned: an embedded {kind} is not base64 ({error})") from error
    if kind == "image/png":
        check_image(f"{name} (an embedded image)", data)
    elif kind.startswith("image/") and kind != "image/svg+xml":
        raise ArtifactError(f"{name} cannot be cleaned: an embedded {kind} may hold anything; use PNG")
    elif not kind.startswith(("font/", "application/font", "application/x-font")):
        check_clean(f"{name} (an embedded {kind})", data.decode("utf-8", "replace"))


def _comments(name: str, kind: bytes, body: bytes) -> list[str]:
    """The texts of a PNG's comment chunk."""
    if kind in (b"tEXt", b"eXIf"):
        return [body.replace(b"\0", b" ").decode("latin-1")]
    word, _, rest = body.partition(b"\0")
    packed = rest[1:] if kind == b"zTXt" else rest[2:].split(b"\0", 2)[-1]
    if kind == b"zTXt" or rest[:1] == b"\1":
        try:
            packed = zlib.decompressobj().decompress(packed, 2**20)
        except zlib.error as error:
            raise ArtifactError(f"{name} cannot be cleaned: a comment of the image is unreadable ({error})") from error
    return [word.decode("latin-1"), packed.decode("utf-8", "replace")]


def _scrub_json(text: str, clean: Callable, name: str) -> tuple[str, str]:
    """The cleaned file, the same where there was nothing to clean, and the texts in it."""
    value = parse_json(text, name)
    cleaned = clean(value)
    shown = _APART.join(_strings(cleaned))
    return (text if cleaned == value else json.dumps(cleaned, indent=1, ensure_ascii=False) + "\n"), shown


def _log_parts(text: str) -> list[str]:
    """A log in parts: each JSON object's line, and the runs of other lines between them."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # a text in JSON may hold other line separators
    groups = itertools.groupby(lines, lambda line: line.lstrip().startswith("{"))
    return [part for is_json, lines in groups for part in (lines if is_json else ("".join(lines),))]


def _scrub_part(part: str, name: str) -> tuple[str, str]:
    """A part of a log, cleaned, and the texts in it."""
    if not part.lstrip().startswith("{"):
        return (scrub_text(part),) * 2
    value = parse_json(part, f"a line of {name}")
    cleaned = scrub_strings(value)
    clean = part if cleaned == value else json.dumps(cleaned, ensure_ascii=False) + "\n"
    return clean, _APART.join(_strings(cleaned))


def _part_text(part: str, name: str) -> str:
    is_json = part.lstrip().startswith("{")
    return _APART.join(_strings(parse_json(part, f"a line of {name}"))) if is_json else part


def _strings(value, key: str = "") -> Iterator[str]:
    """Every text in a JSON value, keys too; not images, which are checked apart, and versions of packages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            if not name.startswith(("image/p", "image/j", "image/g")) and not (key == "packages" and is_version(item)):
                yield from _strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)


def _decode(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{name} cannot be cleaned: it is neither UTF-8 text nor a PNG ({error.reason})") from error


def _readings(text: str):
    """The text as it stands, and as a reader could decode it; embedded files are checked elsewhere."""
    bare = plain_placeholders(_DATA_URI.sub("", text))
    yield "as it stands", bare
    if "&" in bare and (plain := html.unescape(bare)) != bare:
        yield "spelled in HTML entities", plain
    if "%" in bare and (plain := urllib.parse.unquote(bare)) != bare:
        yield "percent-encoded", plain
    if "\\u" in bare or "\\x" in bare:
        yield "escaped", _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), bare)
    for match in _BASE64.finditer(bare):
        if plain := _as_text(match.group()):
            yield "in base64", plain


def _as_text(word: str) -> str | None:
    """What a word says in base64, None where that is no text."""
    try:
        padded = word.rstrip("=")
        data = base64.urlsafe_b64decode(padded.replace("+", "-").replace("/", "_") + "=" * (-len(padded) % 4))
        text = data.decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return text if sum(char.isprintable() or char in "\r\n\t" for char in text) == len(text) else None
