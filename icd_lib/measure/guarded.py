"""A program that does not outlive who started it: it and what it starts are killed when that one ends, however it does.

A process of its own starts the program and waits for the end of a pipe that only its own starter can write to: that
comes when the starter closes it, and also when the starter is killed. This file is that process; it needs nothing but
Python's own library.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

NOT_STARTED = "the program cannot be started"


@contextlib.contextmanager
def guarded(command: Sequence[str], **how) -> Iterator[subprocess.Popen]:
    """Run a command for the block, without input; what still runs of its process group at the end is killed.

    how: as `subprocess.Popen` takes it. A command that cannot be started ends with 1 and says `NOT_STARTED` in its
    errors; one that a signal ends gives 128 and the signal's number.
    """
    ending, kept = os.pipe()
    guard = [sys.executable, "-I", "-S", __file__, str(ending), *command]
    try:
        with subprocess.Popen(
            guard, stdin=subprocess.DEVNULL, pass_fds=[ending], start_new_session=True, **how
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
    finally:
        os.close(ending)
        os.close(kept)


def main(ending: str, *command: str) -> int:
    """Run the command, and kill this process's group when the pipe ends first."""
    threading.Thread(target=_kill_at_end_of, args=(int(ending),), daemon=True).start()
    try:
        code = subprocess.Popen(command).wait()
    except OSError as error:
        print(f"{NOT_STARTED}: {error.strerror or error}", file=sys.stderr)
        return 1
    return code if code >= 0 else 128 - code


def _kill_at_end_of(pipe: int) -> None:
    os.read(pipe, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
