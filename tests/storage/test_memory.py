"""Free memory: the least of the machine's, every control group's and the process's own limits; the most it took."""

import resource
import subprocess
import sys

import psutil
import pytest

from icd_lib.paths import project_root
from icd_lib.storage.memory import free_memory

GIB = 1 << 30


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """(cgroups, process) folders of a machine with 64 GiB free; the process has no limits of its own."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 64 * GIB}))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    cgroups, process = tmp_path / "cgroup", tmp_path / "self"
    write(process, cgroup="0::/", status="VmSize:\t 1048576 kB\nVmData:\t 524288 kB")
    write(cgroups, cgroup__controllers="memory")
    return cgroups, process


def test_without_limits_it_is_the_systems(machine):
    assert free_memory(*machine) == 64 * GIB
    write(machine[0], memory__max="max", memory__current=GIB)
    assert free_memory(*machine) == 64 * GIB


def test_a_containers_root_of_version_2_counts(machine):
    write(machine[0], memory__max=4 * GIB, memory__current=GIB)
    assert free_memory(*machine) == 3 * GIB


@pytest.mark.parametrize("limits, left", [(("max", 8, 5), 4), ((5, "max", 6), 3), ((7, 9, "max"), 5), ((7, 8, 2), 1)])
def test_the_least_of_nested_groups_of_version_2_counts(machine, limits, left):
    cgroups, process = machine
    write(process, cgroup="0::/job/step 1/task")
    for folder, limit, used in zip(("job", "job/step 1", "job/step 1/task"), limits, (2, 3, 1), strict=True):
        write(cgroups / folder, memory__max=limit if limit == "max" else limit * GIB, memory__current=used * GIB)
    assert free_memory(*machine) == left * GIB


def test_version_1_counts_and_its_huge_number_is_no_limit(machine):
    cgroups, process = machine
    (cgroups / "cgroup.controllers").unlink()
    write(process, cgroup="12:cpu,cpuacct:/\n5:memory:/docker/abc\n0::/unified")
    group = cgroups / "memory" / "docker" / "abc"
    write(cgroups / "memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=60 * GIB)
    write(group, memory__limit_in_bytes=6 * GIB, memory__usage_in_bytes=4 * GIB)
    assert free_memory(*machine) == 2 * GIB
    write(group, memory__stat=f"cache 9\ntotal_inactive_file {GIB}")
    assert free_memory(*machine) == 3 * GIB, "the kernel gives cached files back"


def test_a_group_whose_path_is_the_hosts_is_found_at_the_mounted_root(machine):
    cgroups, process = machine
    write(process, cgroup="0::/system.slice/../kubepods/pod7")
    write(cgroups, memory__max=2 * GIB, memory__current=GIB)
    assert free_memory(*machine) == GIB


def test_a_group_above_its_limit_leaves_nothing(machine):
    write(machine[0], memory__max=GIB, memory__current=2 * GIB)
    assert free_memory(*machine) == 0


@pytest.mark.parametrize("name, left", [("RLIMIT_AS", 3 * GIB), ("RLIMIT_DATA", 3.5 * GIB)])
def test_the_process_has_limits_of_its_own(machine, monkeypatch, name, left):
    which = getattr(resource, name)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4 * GIB if kind == which else -1, -1))
    assert free_memory(*machine) == left


def test_what_cannot_be_read_is_no_limit(machine, tmp_path):
    assert free_memory(tmp_path / "nothing", tmp_path / "nothing") == 64 * GIB
    write(machine[0], memory__max="garbage", memory__current=1)
    assert free_memory(*machine) == 64 * GIB


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_real_limit_is_seen():
    code = "import resource as r; r.setrlimit(r.RLIMIT_AS, (2**31, 2**31)); "
    code += "from icd_lib.storage.memory import free_memory; print(free_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project_root(), check=True)
    assert 0 < int(done.stdout) < 2**31


PEAK = "from icd_lib.storage.memory import peak_resident; print(peak_resident())"
HOLDS = """import subprocess, sys
held = bytearray(b"x") * (1 << 29)
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_peak_of_a_process_is_its_own_and_not_that_of_what_started_it():
    def peak(*command):
        command = [sys.executable, "-c", *command]
        return int(subprocess.run(command, capture_output=True, text=True, cwd=project_root(), check=True).stdout)

    alone = peak(PEAK)
    assert peak(HOLDS, PEAK) < alone + (1 << 28)
    assert peak(f"held = bytearray(b'x') * (1 << 29); {PEAK}") > alone + (1 << 28)
