"""The memory that this process may still take, of the machine, of its containers and of its own limits; and took."""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
SELF = Path("/proc/self")
# Limit, usage and the name of the part of the usage that the kernel gives back when asked, by version of the cgroups.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def free_memory(cgroups: Path = CGROUPS, process: Path = SELF) -> int:
    """Bytes that this process may still allocate, the least of what each of these leaves:

    the system; the limit, less the usage, of every control group above the process (a container's, a job's), version 1
    and 2; and the process's own RLIMIT_AS and RLIMIT_DATA. cgroups, process: where these are read.
    """
    left = [psutil.virtual_memory().available, *_left_by_cgroups(cgroups, process), *_left_by_limits(process)]
    return max(0, min(left))


def peak_resident(process: Path = SELF) -> int:
    """Bytes of the most memory that this process held at once.

    Linux's own mark of it (VmHWM): `ru_maxrss`, the answer elsewhere, begins there with what the process that started
    this one had held.
    """
    for line in _text(process / "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return largest_resident(resource.RUSAGE_SELF)


def largest_resident(who: int) -> int:
    """`ru_maxrss` in bytes, which macOS gives and Linux does not (getrusage(2)); who: as in `resource.getrusage`."""
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _left_by_cgroups(cgroups: Path, process: Path) -> Iterator[int]:
    for version, folder in _memory_cgroups(cgroups, process):
        limit_file, usage_file, cached_name = _FILES[version]
        limit, usage = _number(folder / limit_file), _number(folder / usage_file)
        if limit is not None and usage is not None:
            yield limit - max(0, usage - _stat(folder, cached_name))


def _memory_cgroups(cgroups: Path, process: Path) -> Iterator[tuple[int, Path]]:
    """(version, folder) of the process's groups, from its own up to the root.

    Inside a container the root that is mounted may be the group itself, whose path then does not exist below it.
    """
    for line in _text(process / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            version, root = 2, cgroups if (cgroups / "cgroup.controllers").exists() else cgroups / "unified"
        elif "memory" in controllers.split(","):
            version, root = 1, cgroups / "memory"
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            yield version, root.joinpath(*parts[:depth])


def _left_by_limits(process: Path) -> Iterator[int]:
    status = dict(line.split(":", 1) for line in _text(process / "status").splitlines() if ":" in line)
    for limit, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        soft, words = resource.getrlimit(limit)[0], status.get(name, "").split()
        if soft != resource.RLIM_INFINITY and words:
            yield soft - int(words[0]) * 1024


def _stat(folder: Path, name: str) -> int:
    lines = [line.split() for line in _text(folder / "memory.stat").splitlines()]
    return next((int(words[1]) for words in lines if len(words) == 2 and words[0] == name and words[1].isdigit()), 0)


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none ("max": no limit)."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    """The text of a system file, nothing where it is not there or not readable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
