"""A stage's kernel: IPython's own, but it dies with the run that started it, at once and whatever it is doing.

Without that, the kernel of a run that was killed would go on writing while the next run holds the folder's lock.
"""

import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when the process `parent` ends; elsewhere ipykernel looks for its parent once a second."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if os.getppid() != parent:  # it ended before it was asked for
        os._exit(1)


def load() -> ModuleType:
    """ipykernel's application. As with ipykernel_launcher no file of the working directory stands in for a library."""
    if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():
        del sys.path[0]
    return importlib.import_module("ipykernel.kernelapp")


def main() -> None:
    """Start the kernel with ipykernel's own command line."""
    parent = int(os.environ["JPY_PARENT_PID"])
    die_with_parent(parent)
    load().launch_new_instance(parent_handle=parent)  # its default is of when it was imported: before a fork


if __name__ == "__main__":
    main()
