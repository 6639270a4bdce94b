"""Kernels as copies of one process that has imported the libraries already: each stage is as fresh, and starts at once.

`python -m icd_lib.execute.kernel_server FD MODULE ...` imports the modules, then forks a kernel for every request on
the socket. It computes nothing itself, so a copy holds imported code and no state of an earlier stage. For Linux, where
every library at hand survives a fork that comes before the first computation.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

import psutil

from icd_lib.execute import kernel

# PYTHONHASHSEED: runs must repeat. PYTHONWARNINGS: tqdm asks for a widget that a page cannot show.
# MPLBACKEND: what IPython chooses, said before matplotlib is imported.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
# Of the server alone: an import that asks for GPUs must not start CUDA, which does not survive a fork.
_SERVER_ENVIRONMENT = ENVIRONMENT | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
_MAX_REQUEST = 1 << 20
_MOST_KEPT = 2  # each has all of its modules in memory
_REPLY_S = 120  # the first request waits for the imports


class ForkedKernel:
    """A kernel process with the methods of `subprocess.Popen` that jupyter_client uses."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid = pid
        self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        """None while the kernel runs, else 0: only its own parent learns an exit code."""
        try:
            return 0 if self._process.status() == psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return 0

    def wait(self) -> int:
        """Return when the kernel is gone."""
        self._process.wait()
        return 0

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the kernel is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class KernelServer:
    """This process's end of the socket; the server starts with the first request and ends with the block.

    `modules` are imported ahead of the kernels, in the folder `cwd`; environment: variables of server and kernels.
    """

    def __init__(self, modules: Sequence[str], cwd, environment: Mapping[str, str] | None = None):
        self.modules, self.cwd, self.environment = modules, cwd, dict(environment or {})
        self._process: subprocess.Popen | None = None
        self._connection: socket.socket | None = None

    def __enter__(self) -> "KernelServer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def is_dead(self) -> bool:
        """Whether it was started and has ended."""
        return self._process is not None and self._process.poll() is not None

    def close(self) -> None:
        """End the server and its kernels, if there are any."""
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def fork(self, command: Sequence[str], env: dict[str, str], cwd) -> ForkedKernel:
        """A kernel with this command line, environment and folder; `RuntimeError` if the server is gone."""
        connection = self.start()
        try:
            connection.sendall(json.dumps([list(command), env | self.environment, str(cwd)]).encode() + b"\n")
            return ForkedKernel(int(connection.recv(32)))
        except (OSError, ValueError, psutil.NoSuchProcess) as error:
            self.close()  # an answer that comes too late must not be taken for the next one's
            raise RuntimeError(f"the process that starts kernels does not answer ({error})") from error

    def start(self) -> socket.socket:
        """Let the imports begin, if they have not; returns this end of the socket."""
        if self._connection is not None:
            return self._connection
        ours, theirs = socket.socketpair()
        ours.settimeout(_REPLY_S)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(theirs.fileno()), *self.modules],
                env=os.environ | self.environment | _SERVER_ENVIRONMENT | {"JPY_PARENT_PID": str(os.getpid())},
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the run, which ends its kernels in order
            )
        self._connection = ours
        return ours


class WarmServers:
    """Servers that outlive a run: the next one with the same modules finds the imports done. They end with the block.

    environment: variables of all of them.
    """

    def __init__(self, environment: Mapping[str, str] | None = None):
        self.environment = environment
        self._kept: dict[tuple, KernelServer] = {}

    def __enter__(self) -> "WarmServers":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """End all of them."""
        while self._kept:
            self._kept.popitem()[1].close()

    def of(self, modules: Sequence[str], cwd) -> KernelServer:
        """The server of these modules; of others the last one stays too, so that a sweep may alternate."""
        key = (tuple(modules), str(cwd))
        server = self._kept.pop(key, None) or KernelServer(modules, cwd, self.environment)
        if server.is_dead:
            server.close()  # it starts anew with the next request
        self._kept[key] = server
        while len(self._kept) > _MOST_KEPT:
            self._kept.pop(next(iter(self._kept))).close()
        return server


def serve(connection: socket.socket) -> list[str] | None:
    """Fork a process per request; returns its command in each of them, and None in the server when the run is over."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copies: let them go without a trace
    with connection, connection.makefile("rb") as requests:
        while request := requests.readline(_MAX_REQUEST):
            command, env, cwd = json.loads(request)
            server = os.getpid()
            if os.fork():
                continue
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(env | {"JPY_PARENT_PID": str(server)})
            os.chdir(cwd)
            connection.sendall(str(os.getpid()).encode())
            return command
    return None


def main(descriptor: str, *modules: str) -> None:
    """Import, serve, and in a copy become the kernel."""
    kernel.die_with_parent(int(os.environ["JPY_PARENT_PID"]))
    connection = socket.socket(fileno=int(descriptor))
    for module in modules:
        # A stage that needs a library which is not there says so itself.
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    path = list(sys.path)
    kernel.load()
    sys.path[:] = path  # the kernels leave the working directory out of it, this process need not
    command = serve(connection)
    if command is not None:
        sys.argv = command
        kernel.main()


if __name__ == "__main__":
    main(*sys.argv[1:])
