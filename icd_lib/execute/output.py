"""What a command prints, whoever reads it: an encoding, a closed pipe or a full disk there never ends a run.

A run goes on when its reader is gone (`| head -n 3`) and ends with its own exit code; what it says is in run.log too.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class Steady:
    """A text stream that cannot fail: what its encoding lacks is written as `\\u2192`, what nobody takes is dropped."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written; returns the length of the text."""
        if self._stream is not None:
            with self._dropped_on_failure():
                try:
                    self._stream.write(text)
                except UnicodeEncodeError as error:
                    self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        return len(text)

    def flush(self) -> None:
        """Hand over what was written."""
        if self._stream is not None:
            with self._dropped_on_failure():
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether a terminal reads."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    @property
    def encoding(self) -> str:
        """Of the stream below; libraries ask for it."""
        return getattr(self._stream, "encoding", None) or "ascii"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # nobody reads, no room, or closed
            _to_nowhere(self._stream)
            self._stream = None


def _to_nowhere(stream) -> None:
    """Let a stream's descriptor lead nowhere, so that what Python still holds for it is flushed without an error."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test or closed: nothing is held
        descriptor = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """`sys.stdout` and `sys.stderr` cannot fail inside the block.

    Descriptors 0 to 2 that are closed (`>&-`) are opened on nothing: the next file would take their number, and what a
    library or a kernel prints would go into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Steady(before[0]), Steady(before[1])
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
