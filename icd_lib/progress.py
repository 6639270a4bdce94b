"""Saying how far a long step has come: bars where a terminal is, few plain lines where not.

A stage runs in a kernel of its own and prints lines. Those that begin with `DETAIL` only say how far something is: the
next one replaces them.
"""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

DETAIL = "· "
QUIET_S = 15.0  # in plain output a detail is shown when nothing else was for so long


def follow(progress: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """A (done, total) callback that says a detail per tenth."""
    said = set()

    def report(done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if tenth and tenth not in said:
            said.add(tenth)
            progress(f"{DETAIL}{what}: {10 * tenth} %")

    return report


class Screen:
    """Where a run's lines go: `say(line)`; `stage(i)` when the i-th stage has ended; `close()` at the end.

    On a terminal one bar of all stages stays at the bottom and shows the newest detail; elsewhere lines are printed.
    """

    def __init__(self, stages: int, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self.bar = None
        if self.stream.isatty():
            form = "{n_fmt}/{total_fmt} stages |{bar:20}| {elapsed} {postfix}"
            self.bar = tqdm(total=stages, file=self.stream, bar_format=form, dynamic_ncols=True, leave=False)
        self.last = time.monotonic()

    def say(self, line: str) -> None:
        """Show a line; a detail only in the bar, or when nothing else was shown for a while."""
        detail = line.lstrip(" 0123456789:|").startswith(DETAIL.strip())
        if self.bar is not None:
            if detail:
                self.bar.set_postfix_str(line.rpartition(DETAIL)[2])
            else:
                self.bar.set_postfix_str("", refresh=False)
                tqdm.write(line, file=self.stream)
        elif not detail or time.monotonic() - self.last > QUIET_S:
            print(line, file=self.stream, flush=True)
            self.last = time.monotonic()

    def stage(self, done: int) -> None:
        """`done` stages have ended."""
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Take the bar away; what was said stays."""
        if self.bar is not None:
            self.bar.close()
