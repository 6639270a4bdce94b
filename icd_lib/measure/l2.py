"""L2 hit rate through NVIDIA Nsight Compute (ncu): availability, the command to run, and its CSV read back."""

import csv
import io
import shutil
from collections.abc import Sequence
from pathlib import Path

from icd_lib.errors import MeasureError
from icd_lib.metric import Figure, figure, not_measured

HIT = "lts__t_sectors_op_read_lookup_hit.sum"
MISS = "lts__t_sectors_op_read_lookup_miss.sum"
DRAM_BYTES = "dram__bytes_read.sum"
DURATION = "gpu__time_duration.sum"
METRICS = (HIT, MISS, DRAM_BYTES, DURATION)
SECTOR_BYTES = 32
# What ncu writes in the row of units, and how many of the base unit one is; base units are what `ncu_command`'s report
# is printed in, the others are those of a report that was printed without that option.
_UNITS = {"": 1.0, "sector": 1.0, "byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "Tbyte": 1e12}
PERMISSION = (
    "GPU counters are for administrators only; run as root or with CAP_SYS_ADMIN (in a container "
    "--cap-add=SYS_ADMIN), or load the driver with NVreg_RestrictProfilingToAdminUsers=0"
)
CACHE_CONTROL = CLOCK_CONTROL = "none"
_DRIVER_PARAMS = Path("/proc/driver/nvidia/params")


def ncu_reason(params: Path = _DRIVER_PARAMS) -> str | None:
    """Why L2 counters cannot be read here, or None when nothing stands in the way."""
    if not params.is_file():
        return "no NVIDIA GPU driver on this machine"
    if shutil.which("ncu") is None:
        return "ncu (NVIDIA Nsight Compute) is not on the PATH; install the package nsight-compute"
    if "RmProfilingAdminOnly: 1" in params.read_text() and not _may_profile():
        return f"ERR_NVGPUCTRPERM: {PERMISSION}"
    return None


def l2_hit_pct(asked: bool = True) -> Figure:
    """The L2 hit rate of models on a CPU: a not_measured figure that says what is missing."""
    if not asked:
        return not_measured("%", "ncu is switched off in this scenario (measure.ncu)", method="ncu")
    reason = ncu_reason() or "the models of this run are on the CPU, ncu counts what runs on an NVIDIA GPU"
    return not_measured("%", reason, method="ncu")


def ncu_command(
    program: Sequence[str],
    report: str,
    nvtx_range: str = "icd_measure",
    *,
    metrics: Sequence[str] = METRICS,
    replay: str = "kernel",
) -> list[str]:
    """The ncu call that profiles `program` inside an NVTX push/pop range and writes `<report>.ncu-rep`.

    Caches and clocks are left alone (ncu's defaults flush the caches before each replay, which hides reuse across
    kernels); its times are therefore never mixed with latency runs. All four metrics take 3 passes on an H200: with
    replay "kernel" a kernel is run once for each, and from its second run finds in the cache what its first left; with
    "application" the whole program is.
    """
    options = f"--target-processes all --nvtx --cache-control {CACHE_CONTROL} --clock-control {CLOCK_CONTROL}".split()
    options += ["--replay-mode", replay]
    return [
        "ncu",
        *options,
        "--nvtx-include",
        f"{nvtx_range}/",  # the slash marks a push/pop range
        "--metrics",
        ",".join(metrics),
        "-f",
        "-o",
        report,
        *program,
    ]


def parse_ncu_csv(text: str) -> dict[str, Figure]:
    """Read `ncu --import R --csv --page raw --print-units base`: {"l2_hit_pct", "l2_read_mb", "dram_read_mb"}, figures.

    l2_hit_pct = 100 * sum(hit) / (sum(hit) + sum(miss)) over all kernels, never a mean of percentages; l2_read_mb is
    what was looked up, hit or not, in sectors of 32 bytes. Raises MeasureError as `ncu_kernels` does, and where nothing
    was looked up.
    """
    kernels, units = _kernels_and_units(text)

    def total(name: str) -> float:
        return _scale(units, name) * sum(_number(row[name], name) for row in kernels)

    hits, misses = total(HIT), total(MISS)
    if hits + misses <= 0:
        raise MeasureError("ncu counted no L2 read at all; check the metric names with ncu --query-metrics")
    result = {
        "l2_hit_pct": figure(
            100 * hits / (hits + misses),
            "%",
            "measured",
            n=len(kernels),
            method="ncu, sum(hit) / (sum(hit) + sum(miss))",
        ),
        "l2_read_mb": figure(
            (hits + misses) * SECTOR_BYTES / 1e6,
            "MB",
            "measured",
            n=len(kernels),
            method=f"ncu, (sum(hit) + sum(miss)) * {SECTOR_BYTES} bytes",
        ),
    }
    if DRAM_BYTES in kernels[0]:
        read = total(DRAM_BYTES)
        result["dram_read_mb"] = figure(read / 1e6, "MB", "measured", n=len(kernels), method=f"ncu, {DRAM_BYTES}")
    return result


def ncu_kernels(text: str) -> list[dict[str, str]]:
    """One row, column → cell, for each kernel of ncu's raw CSV; its chatter (`==PROF==`) and units row are skipped.

    Raises MeasureError when the columns of the hit rate are missing, or there is no kernel.
    """
    return _kernels_and_units(text)[0]


def _kernels_and_units(text: str) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The rows of `ncu_kernels`, and the row of units, column → unit."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("==")]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    missing = [name for name in (HIT, MISS) if not rows or name not in rows[0]]
    if missing:
        raise MeasureError(f"the ncu CSV lacks {', '.join(missing)}; collect them with ncu_command (--page raw --csv)")
    kernels = [row for row in rows if (row.get("ID") or "").strip()]
    if not kernels:
        raise MeasureError("the ncu CSV holds no kernel; was the NVTX range entered?")
    return kernels, next((row for row in rows if not (row.get("ID") or "").strip()), {})


def _scale(units: dict[str, str], name: str) -> float:
    """How many base units one of a column's is."""
    unit = (units.get(name) or "").strip()
    if unit not in _UNITS:
        raise MeasureError(f"ncu reports {name} in {unit!r}, expected one of {', '.join(filter(None, _UNITS))}")
    return _UNITS[unit]


def _number(cell: str, name: str) -> float:
    try:
        return float(cell.replace(",", ""))
    except ValueError as error:
        raise MeasureError(f"ncu reports {cell!r} for {name}, expected a number") from error


def _may_profile(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process holds CAP_SYS_ADMIN (capability 21)."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 21 & 1)
    return False
