"""Run a program under NVIDIA Nsight Compute and keep what its counters said, with how they were read."""

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.measure.guarded import NOT_STARTED, guarded
from icd_lib.measure.l2 import (
    CACHE_CONTROL,
    CLOCK_CONTROL,
    DRAM_BYTES,
    HIT,
    MISS,
    PERMISSION,
    ncu_command,
    ncu_kernels,
    parse_ncu_csv,
)
from icd_lib.records.counted import NcuRecord

METRICS = (HIT, MISS, DRAM_BYTES)
NVTX_RANGE = "icd_measure"
PASSES = "profiler__replayer_passes"
TIMEOUT_S = 300.0
PLAIN_NUMBERS = {"LC_ALL": "C"}  # ncu groups digits as the user's language does, in some with what is a decimal point
_ERROR = "==ERROR=="  # begins a line in which ncu says what went wrong
_SHOWN = 600  # characters of what ncu and its program said
_HELD = "another tool holds the counters; end it and try again (NVIDIA's DCGM: dcgmi profile --pause)"
# ncu's words where it, the driver or the user's rights are in the way, and no program would be profiled.
_REFUSALS = {
    "ERR_NVGPUCTRPERM": PERMISSION,
    "LibraryNotLoaded": "ncu cannot load the driver's profiling library in this kind of container or virtual machine",
    "driver resource was unavailable": _HELD,
    "DriverResourceUnavailable": _HELD,
    "not compatible with Nsight Compute": "the driver does not fit this ncu; update it, or take an ncu of its time",
    "Failed to initialize the profiler": "ncu cannot start its profiler here",
    NOT_STARTED: "ncu cannot be started; reinstall nsight-compute",
}


def profile(
    program: Sequence[str], *, replay: str = "kernel", timeout_s: float = TIMEOUT_S, ncu: str = "ncu"
) -> NcuRecord:
    """Run `program` under ncu; what is counted are the kernels in its NVTX push/pop range "icd_measure".

    The program warms up, pushes the range, does what is measured, synchronises and pops it (`measured_range`).

    Raises `ResourceError` where there is no ncu or it may not read counters here, `MeasureError` where the program
    fails, takes longer than `timeout_s`, or starts no kernel in the range.
    """
    if shutil.which(ncu) is None:
        raise ResourceError("ncu (NVIDIA Nsight Compute) is not on the PATH; install the package nsight-compute")
    with tempfile.TemporaryDirectory(prefix="icd-ncu-") as folder:
        report = str(Path(folder) / "report")
        command = ncu_command(program, report, NVTX_RANGE, metrics=METRICS, replay=replay)
        said = _run([ncu, *command[1:]], timeout_s)
        if not Path(f"{report}.ncu-rep").is_file():
            raise MeasureError(f"ncu wrote no report; was the NVTX range {NVTX_RANGE!r} entered? It said: {_end(said)}")
        shown = "--csv --page raw --print-units base".split()
        text = _run([ncu, "--import", f"{report}.ncu-rep", *shown], timeout_s, PLAIN_NUMBERS)
    return read_record(text, command, replay=replay, version=_version(_run([ncu, "--version"], timeout_s)))


def read_record(text: str, command: Sequence[str], *, replay: str, version: str | None) -> NcuRecord:
    """The record of ncu's raw CSV and of the command that it was taken with; `MeasureError` as `parse_ncu_csv`."""
    kernels = ncu_kernels(text)
    passes = [_count(row[PASSES]) for row in kernels if (row.get(PASSES) or "").strip()]
    return NcuRecord(
        metrics=parse_ncu_csv(text),
        kernels=len(kernels),
        passes=max(passes) if passes else None,
        replay=replay,
        cache_control=CACHE_CONTROL,
        clock_control=CLOCK_CONTROL,
        version=version,
        command=shown_command(command),
    )


def shown_command(command: Sequence[str]) -> list[str]:
    """A command without this machine's folders: each absolute path by its last part.

    >>> shown_command(["ncu", "-o", "/var/x/report", "/usr/bin/python3", "benchmarks/gpu.py"])
    ['ncu', '-o', 'report', 'python3', 'benchmarks/gpu.py']
    """
    return [Path(word).name if Path(word).is_absolute() else word for word in command]


@contextmanager
def measured_range(device: str = "cuda") -> Iterator[None]:
    """The block whose kernels ncu counts; it begins and ends when the device has nothing to do.

    On a device that is no CUDA device nothing is marked: ncu then says that there was no kernel.
    """
    import torch

    if torch.device(device).type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    torch.cuda.nvtx.range_push(NVTX_RANGE)
    try:
        yield
        torch.cuda.synchronize(device)
    finally:
        torch.cuda.nvtx.range_pop()


def _run(command: list[str], timeout_s: float, environment: dict[str, str] | None = None) -> str:
    """What a command writes; the errors of `profile` where it fails. environment: laid over this process's."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    # With ncu the profiled program is ended, which would go on using the device.
    with guarded(command, env=os.environ | (environment or {}), **pipes) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(
                f"ncu took longer than {timeout_s:g} s; measure fewer calls or allow more time"
            ) from error
    said = f"{out}\n{err}"
    if (refused := _refusal(said)) and (process.returncode or _ERROR in said):
        raise ResourceError(f"ncu: {refused}. It said: {_end(said)}")
    if process.returncode:
        raise MeasureError(f"ncu or its program ended with {process.returncode}: {_end(said)}")
    return out if "--csv" in command else said


def _refusal(said: str) -> str | None:
    """Why ncu would profile no program at all, and the cure; None where it says nothing of the kind."""
    lower = said.lower()
    return next((cure for words, cure in _REFUSALS.items() if words.lower() in lower), None)


def _end(said: str) -> str:
    """ncu's errors, then the last lines of all else, in one; a program may say much after an error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = " | ".join(line for line in lines if line.startswith(_ERROR))[:_SHOWN]
    rest = " | ".join(line for line in lines if not line.startswith(_ERROR))
    room = _SHOWN - len(errors)
    return " | ".join(filter(None, [errors, rest[-room:] if room else ""])) or "nothing"


def _version(said: str) -> str | None:
    found = re.search(r"Version (\d[\d.]*)", said)
    return found[1].rstrip(".") if found else None


def _count(cell: str) -> int:
    try:
        return math.ceil(float(cell.replace(",", "")))
    except ValueError as error:
        raise MeasureError(f"ncu reports {cell!r} for {PASSES}, expected a number") from error
