"""What a measurement ran on: processor, clocks, memory, load, threads, libraries. No host or user names."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from icd_lib.errors import ResourceError
from icd_lib.measure.energy import NvmlCounter, RaplCounter
from icd_lib.measure.l2 import ncu_reason
from icd_lib.storage.machine import ISA_LIMIT, cpu_flags, simd_flags

PACKAGES = ("torch", "transformers", "numpy", "scipy", "onnxruntime", "openvino", "nncf")
COMPILED_PACKAGES = ("numpy", "scipy", "numba", "igraph", "pymetis")  # of a workload without a model
_CPUINFO, _CPU0 = Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu/cpu0")
_NVIDIA = Path("/proc/driver/nvidia/version")


def fingerprint(*, model: bool = True) -> dict:
    """JSON-able facts about this machine and process; what cannot be read is null, what is unavailable says why.

    Without a `model` torch is neither asked nor imported.
    """
    cpuinfo = _cpuinfo()
    frequency = _or_none(psutil.cpu_freq)
    facts = {
        "cpu": {
            "model": cpuinfo.get("model name") or platform.processor() or platform.machine(),
            "architecture": platform.machine(),
            "logical_cores": psutil.cpu_count(),
            "physical_cores": psutil.cpu_count(logical=False),
            "usable_cores": _usable_cores(),
            "caches": _caches(),
            "simd": simd_flags(),
            "isa_limit": os.environ.get(ISA_LIMIT),
            "virtualised": is_virtualised(),
            "mhz": round(frequency.current) if frequency else None,
            "governor": _read(_CPU0 / "cpufreq/scaling_governor"),
            "clocksource": _read(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        },
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_average": [round(value, 2) for value in _or_none(os.getloadavg) or ()] or None,
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")},
        "os": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "packages": versions(PACKAGES if model else COMPILED_PACKAGES),
        "torch_backend": None,
        "gpu": None,
        "gpu_driver": (_read(_NVIDIA) or "").partition("\n")[0] or None,
        "cxx_compiler": shutil.which(os.environ.get("CXX", "g++")) is not None,
        "counters": {
            "rapl": _counter_state(RaplCounter),
            "nvml": _counter_state(NvmlCounter),
            "ncu": _state(ncu_reason()),
        },
    }
    if model:
        found = _torch_facts()
        facts["threads"] = found.pop("threads") | facts["threads"]
        facts |= found
    return facts


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Package → its version, None where it is not installed."""
    return {name: _version(name) for name in packages}


def _torch_facts() -> dict:
    import torch

    return {
        "threads": {"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads()},
        "torch_backend": {
            "blas": "mkl" if torch.backends.mkl.is_available() else "other",
            "onednn": torch.backends.mkldnn.is_available(),
            "isa": torch.backends.cpu.get_cpu_capability(),
        },
        "gpu": _or_none(torch.cuda.get_device_name, 0) if torch.cuda.is_available() else None,
    } | ({"cuda": torch.version.cuda} if torch.cuda.is_available() else {})


def is_virtualised() -> bool | None:
    """Whether this is a virtual machine; None where the system does not say."""
    flags = cpu_flags()
    return "hypervisor" in flags if flags else None


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo, {} elsewhere."""
    block = (_read(_CPUINFO) or "").split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _caches() -> dict[str, str]:
    """Caches of the first core, e.g. {"L1d": "48K", "L2": "2048K"}."""
    sizes = {}
    for index in sorted(_CPU0.glob("cache/index*")):
        kind = {"Data": "d", "Instruction": "i"}.get(_read(index / "type") or "", "")
        size = _read(index / "size")
        if size:
            sizes[f"L{_read(index / 'level')}{kind}"] = size
    return sizes


def _or_none(ask: Callable, *arguments):
    """What the system answers, None where it does not say."""
    try:
        return ask(*arguments)
    except (OSError, RuntimeError, NotImplementedError):
        return None


def _read(path: Path) -> str | None:
    """Text of a small system file, None where it does not exist or may not be read."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _counter_state(counter) -> dict:
    try:
        counter()
    except ResourceError as error:
        return _state(error.args[0])
    return _state(None)


def _state(reason: str | None) -> dict:
    return {"available": reason is None, "reason": reason}
