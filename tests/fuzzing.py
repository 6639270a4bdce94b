"""What the fuzz tests share: damaged JSON and bytes, a watch on what a call does to the system, and the property."""

import contextlib
import copy
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from icd_lib.errors import IcdError, InternalError

# The same cases in every run and on every machine; nothing is kept between runs.
settings.register_profile(
    "fuzz",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {"os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.utime"}
_MOVES = {"os.rename", "os.link", "os.symlink"}
_NEVER = {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect"}


class Watch:
    """Notes, while it is on, what is written outside one folder, and what must never happen while reading a file."""

    def __init__(self):
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple) -> None:
        if self.folder is None:
            return
        if event == "pickle.find_class" and _is_own_cache():
            return
        if event in _NEVER:
            self.seen.append(f"{event} {args[:2]!r}")
        elif event == "open" and isinstance(args[2], int) and args[2] & _WRITES:
            self._look(event, args[0])
        elif event in _CHANGES:
            self._look(event, args[0])
        elif event in _MOVES:
            self._look(event, args[0])
            self._look(event, args[1])

    def _look(self, event: str, path) -> None:
        if isinstance(path, int) or path is None:
            return
        path = os.path.abspath(os.fsdecode(path))
        inside = path == str(self.folder) or path.startswith(f"{self.folder}{os.sep}")
        if not inside and path != os.devnull and "__pycache__" not in path:  # compiled code is kept there
            self.seen.append(f"{event} {path}")

    @contextlib.contextmanager
    def only(self, folder: Path) -> Iterator[None]:
        """Fails if anything outside `folder` was written."""
        self.seen.clear()
        self.folder = folder
        try:
            yield
        finally:
            self.folder = None
        assert not self.seen, list(self.seen)


def _is_own_cache() -> bool:
    """Whether it is numba that reads what it compiled: the only pickles, and they lie beside our own code."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.count(f"{os.sep}numba{os.sep}core{os.sep}"):
            return True
        frame = frame.f_back
    return False


WATCH = Watch()


@contextlib.contextmanager
def answers(folder: Path) -> Iterator[None]:
    """The property: what runs inside ends by itself or with an error of ours that says something."""
    with WATCH.only(folder):
        try:
            yield
        except IcdError as error:
            assert not isinstance(error, InternalError) and len(error.args[0]) > 10, error
            assert len(str(error)) < 20_000


PLANNED: list[tuple[int, int]] = []


def fuzz(fast: int, slow: int, *examples: dict, **strategies) -> Callable:
    """A test of the property `check(folder, **values)`, over `fast` cases, and over `slow` ones in the slow suite."""

    PLANNED.append((fast, slow))

    def decorate(check: Callable) -> Callable:
        @pytest.mark.parametrize("cases", [fast, pytest.param(slow, marks=pytest.mark.slow)])
        def test(cases, tmp_path):
            tried = 0

            def case(**values):
                nonlocal tried
                tried += 1
                check(tmp_path, **values)

            case.__qualname__ = check.__name__  # what derandomized cases follow from
            for values in examples:
                case = example(**values)(case)
            settings(settings.get_profile("fuzz"), max_examples=cases)(given(**strategies)(case))()
            assert tried >= cases, f"there are only {tried} different cases"

        test.__doc__ = check.__doc__
        test.__name__ = check.__name__
        return test

    return decorate


NASTY = [
    "",
    "\0",
    "../../x",
    "/etc/passwd",
    "a\nb",
    "{{",
    "${x}",
    "__import__('os')",
    "</script>",
    "\ud800",
    "nan",
    "é" * 300,
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 10)
    | st.sampled_from([10**12, 2**63, -(2**63) - 1, 10**30, 1e308, -0.0, float("nan"), float("inf")])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(NASTY)
)
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def deep(levels: int):
    """A list in a list in a list …, as text: Python's own writer could not make it."""
    return "[" * levels + "]" * levels


def places(value, at: tuple = ()) -> Iterator[tuple]:
    """Every path into a JSON value, at most a dozen children of each node."""
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(children)[:12]:
        yield from places(item, (*at, key))


@st.composite
def damaged(draw, value):
    """A copy of a JSON value with one to three of its places replaced, removed, wrapped or added to."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.sampled_from(list(places(value))))
        if not where:
            if draw(st.integers(0, 9)) == 0:
                return draw(junk)
            continue
        node = value
        for key in where[:-1]:
            node = node[key]
        key, what = where[-1], draw(st.sampled_from(["replace", "replace", "remove", "wrap", "add"]))
        if what == "replace":
            node[key] = draw(junk)
        elif what == "remove":
            del node[key]
        elif what == "wrap":
            node[key] = [node[key]]
        elif isinstance(node, dict):
            node[draw(st.text(max_size=6) | st.sampled_from(NASTY))] = draw(junk)
        else:
            node.insert(key, draw(junk))
    return value


def as_json(value) -> bytes:
    """A JSON text, NaN and lone surrogates included."""
    return json.dumps(value).encode()


@st.composite
def damaged_bytes(draw, data: bytes):
    """The bytes cut, overwritten, doubled or filled with others."""
    raw = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        what = draw(st.sampled_from(["cut", "set", "set", "insert", "repeat", "remove"]))
        if what == "cut":
            del raw[at:]
        elif what == "set" and raw:
            raw[at] = draw(st.integers(0, 255))
        elif what == "insert":
            raw[at:at] = draw(st.binary(max_size=12) | st.sampled_from([b"\0", b"\xff\xfe", b"[" * 3000, b"9" * 5000]))
        elif what == "repeat":
            raw[at:at] = raw[at : at + draw(st.integers(1, 60))]
        else:
            del raw[at : at + draw(st.integers(1, 30))]
    return bytes(raw)
