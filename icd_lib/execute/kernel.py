"""A stage's kernel: IPython's own, but it dies with the run that started it, at once and whatever it is doing.

Without that, the kernel of a run that was killed would go on writing while the next run holds the folder's lock.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

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


def main() -> None:
    """Start the kernel with ipykernel's own command line."""
    die_with_parent(int(os.environ["JPY_PARENT_PID"]))
    # As ipykernel_launcher does: what lies in the working directory must not stand in for a library.
    if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():
        del sys.path[0]
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()


if __name__ == "__main__":
    main()
