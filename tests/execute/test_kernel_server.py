"""Kernels forked from a process that has imported ahead: fresh, of the right place, and gone with their owner."""

import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from icd_lib.errors import ResourceError
from icd_lib.execute.kernel_server import KernelServer, WarmServers
from icd_lib.execute.notebook import execute

pytestmark = [
    pytest.mark.notebooks,
    pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only"),
]

BODY = (
    "import os, sys, signal\n"
    "assert not hasattr(sys, 'stage_was_here'), 'state of an earlier stage'\n"
    "sys.stage_was_here = True\n"
    "print(x, os.getpid(), os.getppid(), 'fractions' in sys.modules, os.getcwd(), os.environ['PYTHONHASHSEED'],\n"
    "      signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL, hash('icd'))"
)
WATCHES = (
    "import os\nfrom ipykernel.kernelapp import IPKernelApp\n"
    "app = IPKernelApp.instance()\nprint(app.parent_handle == app.poller.parent_pid == os.getppid())"
)


def a_notebook(folder, body):
    notebook = nbformat.v4.new_notebook()
    parameters = nbformat.v4.new_code_cell("x = 1")
    parameters.metadata["tags"] = ["parameters"]
    notebook.cells = [parameters, nbformat.v4.new_code_cell(body)]
    path = folder / "n.ipynb"
    nbformat.write(notebook, path)
    return path


def run(source, folder, server, x=1, timeout_s=60):
    lines = []
    target = folder / "out" / "n.ipynb"
    execute(source, target, {"x": x}, cwd=folder, timeout_s=timeout_s, echo=lines.append, server=server)
    return lines[-1].split()


def test_each_stage_gets_a_fresh_copy_with_the_imports_done(tmp_path):
    source = a_notebook(tmp_path, BODY)
    with KernelServer(["fractions", "no_such_module_of_ours"], tmp_path) as server:
        first, second = (run(source, tmp_path, server, x) for x in (1, 2))
        parent = server._process.pid
    assert [first[0], second[0]] == ["1", "2"]
    assert first[1] != second[1]
    for seen in (first, second):
        assert seen[2:7] == [str(parent), "True", str(tmp_path), "0", "True"]
    assert first[7] == second[7] == run(source, tmp_path, None)[7]
    assert not any(psutil.pid_exists(int(pid)) for pid in (parent, first[1], second[1]))


def test_a_kernel_watches_the_server_though_what_it_runs_was_imported_there(tmp_path):
    source = a_notebook(tmp_path, WATCHES)
    with KernelServer([], tmp_path) as server:
        assert run(source, tmp_path, server) == ["True"]


def test_no_file_of_the_folder_stands_in_for_a_library(tmp_path):
    (tmp_path / "zmq.py").write_text("raise RuntimeError('this is not pyzmq')")
    source = a_notebook(tmp_path, "print('ran')")
    with KernelServer([], tmp_path) as server:
        assert run(source, tmp_path, server) == ["ran"]


def test_a_warm_server_serves_the_next_run_and_one_that_died_is_replaced(tmp_path):
    source = a_notebook(tmp_path, BODY)
    with WarmServers({"OMP_WAIT_POLICY": "PASSIVE"}) as servers:
        parents = [run(source, tmp_path, servers.of(["fractions"], tmp_path))[2] for _ in range(2)]
        assert parents[0] == parents[1], "and each kernel is fresh, as the notebook asserts"
        policy = a_notebook(tmp_path, "import os; print(os.environ['OMP_WAIT_POLICY'])")
        assert run(policy, tmp_path, servers.of(["fractions"], tmp_path)) == ["PASSIVE"]
        source = a_notebook(tmp_path, BODY)
        process = servers.of(["fractions"], tmp_path)._process
        process.kill()
        process.wait()
        last = run(source, tmp_path, servers.of(["fractions"], tmp_path))[2]
        assert last != parents[0]
        for name in ("decimal", "statistics"):
            servers.of([name], tmp_path)
        assert not psutil.pid_exists(int(last)), "two are kept, the others are gone"
    assert servers._kept == {}


def test_no_server_process_without_a_request(tmp_path):
    with KernelServer([], tmp_path) as server:
        pass
    assert server._process is None


def test_a_dead_server_is_a_resource_error(tmp_path):
    source = a_notebook(tmp_path, BODY)
    with KernelServer([], tmp_path) as server:
        run(source, tmp_path, server)
        server._process.kill()
        server._process.wait()
        with pytest.raises(ResourceError, match="did not start"):
            run(source, tmp_path, server)


def test_a_dead_kernel_is_noticed(tmp_path):
    source = a_notebook(tmp_path, "import os; os._exit(3)")
    with KernelServer([], tmp_path) as server, pytest.raises(ResourceError, match="died"):
        run(source, tmp_path, server)


def test_a_hung_kernel_is_killed(tmp_path):
    source = a_notebook(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    lines = []
    with KernelServer([], tmp_path) as server:
        with pytest.raises(ResourceError, match="took longer"):
            execute(source, tmp_path / "n.ipynb", {}, cwd=tmp_path, timeout_s=3, echo=lines.append, server=server)
        assert not psutil.pid_exists(int(lines[0]))


def test_server_and_kernel_die_with_the_run(tmp_path):
    source = a_notebook(tmp_path, "import os, time; print(os.getppid(), os.getpid(), flush=True); time.sleep(600)")
    code = (
        "import sys; from pathlib import Path; from icd_lib.execute.kernel_server import KernelServer\n"
        "from icd_lib.execute.notebook import execute\n"
        "source, folder = map(Path, sys.argv[1:])\n"
        "with KernelServer([], folder) as server:\n"
        "    echo = lambda line: print(line, flush=True)\n"
        "    execute(source, folder / 'o.ipynb', {}, cwd=folder, timeout_s=99, echo=echo, server=server)"
    )
    command = [sys.executable, "-c", code, str(source), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        owner.kill()  # nobody tells the others
        owner.wait()
        until = time.monotonic() + 5
        while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids)
