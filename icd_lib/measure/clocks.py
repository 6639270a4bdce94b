"""Locking the clocks of an NVIDIA board for as long as a block runs, and giving them back however it ends.

A process of its own locks them and waits for the end of its input: that comes when the block ends, and also when the
process that opened it is killed. `python -m icd_lib.measure.clocks UUID` is that process.
"""

import contextlib
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from icd_lib.errors import ResourceError
from icd_lib.measure.nvml import board_uuid, open_board
from icd_lib.optional import brief
from icd_lib.records.measured import Clocks

SHARE = 0.8  # of the highest graphics clock: below it a board keeps its clock under load, at it power and heat decide
_LOCKED, _REFUSED = "locked ", "refused "
_END_S = 30.0  # that giving back may take
_RESETS = {"graphics": "nvmlDeviceResetGpuLockedClocks", "memory": "nvmlDeviceResetMemoryLockedClocks"}


@contextlib.contextmanager
def locked_clocks(device: str) -> Iterator[Clocks]:
    """Lock the graphics and memory clocks of the board of a device for the block; gives what came of it.

    Not permitted is no failure: the clocks are then as they were, and the reason says so. When it ends NVML's reset is
    asked for, so that a lock from before is gone too; a warning says what may still be locked.
    """
    try:
        name = board_uuid(device)
    except ResourceError as error:
        yield _refused(error.args[0])
        return
    keeper = subprocess.Popen(
        [sys.executable, "-m", "icd_lib.measure.clocks", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # what ends this process's group must not end the one that gives the clocks back
    )
    clocks = _answer(keeper.stdout.readline() if keeper.stdout else "")
    try:
        yield clocks
    finally:
        left = _end(keeper)
        if left and clocks.locked:
            warnings.warn(
                f"the GPU's clocks may still be locked: {left}; give them back with nvidia-smi -rgc and -rmc",
                stacklevel=3,
            )


def _end(keeper: subprocess.Popen) -> str:
    """End the process's input and wait for it; what it could not give back, empty where it gave back all."""
    try:
        left = keeper.communicate(timeout=_END_S)[0].strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the process that locked them does not end ({brief(error)})"
    return left or (f"the process that locked them ended with {keeper.returncode}" if keeper.returncode else "")


def _answer(line: str) -> Clocks:
    """What the process says in its first line; it says one or ends."""
    if line.startswith(_LOCKED):
        return Clocks(locked=True, reason=None, how=line.removeprefix(_LOCKED).strip())
    return _refused(line.removeprefix(_REFUSED).strip() or "the process that locks them said nothing")


def _refused(why: str) -> Clocks:
    return Clocks(locked=False, reason=f"the GPU's clocks could not be locked: {why}")


def main(name: str) -> None:
    """Lock, say so, wait for the end of the input, give back; signals that end a program end the waiting alone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        nvml, board = open_board(name)
        said, locked = lock(nvml, board)
    except ResourceError as error:
        print(f"{_REFUSED}{error.args[0]}", flush=True)
        return
    try:
        print(f"{_LOCKED}{said}", flush=True)
        sys.stdin.read()
    finally:
        left = restore(nvml, board)
    print(", ".join(f"{clock} ({left[clock]})" for clock in locked if clock in left), flush=True)


def lock(nvml: ModuleType, board) -> tuple[str, list[str]]:
    """Lock the clocks at what the board can keep; what they are now, and which. `ResourceError` has the cure if not."""
    try:
        memory = max(nvml.nvmlDeviceGetSupportedMemoryClocks(board))
        choices = nvml.nvmlDeviceGetSupportedGraphicsClocks(board, memory)
        graphics = max(mhz for mhz in choices if mhz <= SHARE * max(choices))
        nvml.nvmlDeviceSetGpuLockedClocks(board, graphics, graphics)
    except Exception as error:  # beside NVMLError what ctypes raises, AttributeError of an old package, no clock at all
        why = str(error) or brief(error)
        raise ResourceError(f"NVML says {why}; run as root, or lock them with nvidia-smi -lgc MHZ before") from error
    try:
        nvml.nvmlDeviceSetMemoryLockedClocks(board, memory, memory)
    except Exception as error:  # boards whose memory has one clock do not take it
        return f"NVML: graphics at {graphics} MHz; memory as it is ({str(error) or brief(error)})", ["graphics"]
    return f"NVML: graphics at {graphics} MHz, memory at {memory} MHz", ["graphics", "memory"]


def restore(nvml: ModuleType, board) -> dict[str, str]:
    """Let the board choose its clocks again; which it did not give back, and why."""
    left = {}
    for clock, reset in _RESETS.items():
        try:
            getattr(nvml, reset)(board)
        except Exception as error:  # whatever NVML or ctypes raises: the one must be tried also where the other fails
            left[clock] = str(error) or brief(error)
    return left


if __name__ == "__main__":
    main(*sys.argv[1:])
