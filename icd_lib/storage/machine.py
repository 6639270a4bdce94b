"""What was measured of this machine and holds for later runs: kept in `ICD_CACHE_DIR`, by default ~/.cache/icd.

The plan of a run follows the measured width curves. Measuring them once per machine and model makes two runs with one
seed take the same decisions.
"""

import hashlib
import json
import os
import platform
import socket
import tempfile
from pathlib import Path

from icd_lib.errors import ArtifactError
from icd_lib.paths import home_folder, user_path
from icd_lib.storage.atomic import atomic_write, to_json
from icd_lib.storage.json_text import read_text

WORKER_DEVICE = "ICD_WORKER_DEVICE"  # of a cluster's worker: the GPU that it alone computes on
SIMD_FLAGS = (
    "sse4_2 avx avx2 fma avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16 avx_vnni amx_tile amx_bf16 amx_int8 "
    "neon asimd asimddp bf16 i8mm sve sve2"
).split()
# The instructions up to which oneDNN goes, in PyTorch and in OpenVINO; ONNX Runtime's kernels do not read it.
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
# Flag → words of which one is in every level of `ISA_LIMIT` that has it.
_LEVELS = {
    "amx_bf16": ("AMX",),
    "amx_int8": ("AMX",),
    "avx512_bf16": ("AMX", "AVX10", "BF16", "FP16"),
    "avx512_vnni": ("AMX", "AVX10", "BF16", "FP16", "AVX512_CORE_VNNI"),
    "avx_vnni": ("AMX", "AVX10", "FP16", "AVX2_VNNI"),
}


def cache_folder() -> Path:
    """Folder of this machine's figures; of a user without a home a temporary one."""
    if given := os.environ.get("ICD_CACHE_DIR"):
        return user_path(given)
    home = home_folder()
    return home / ".cache" / "icd" if home else Path(tempfile.gettempdir()) / f"icd-{os.getuid()}"


def kept_file(kind: str, key: dict, folder: Path | None = None) -> Path:
    """Where what was measured of `kind` under `key` lies; folder: instead of this machine's."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return (folder or cache_folder()) / f"{kind}-{digest[:24]}.json"


def read_kept(kind: str, key: dict, folder: Path | None = None) -> dict | None:
    """What was kept of `kind` under exactly this key, or None; a damaged file counts as none: measure anew."""
    try:
        entry = read_text(kept_file(kind, key, folder))
    except (OSError, ValueError):
        return None
    return entry.get(kind) if isinstance(entry, dict) and entry.get("key") == key else None


def keep(kind: str, key: dict, value: dict, folder: Path | None = None) -> bool:
    """Keep `value` for later runs; False where the cache cannot be written (a later run then measures again)."""
    try:
        atomic_write(kept_file(kind, key, folder), to_json({"key": key, kind: value}))
    except ArtifactError:
        return False
    return True


def read_tables(key: dict) -> dict | None:
    """The kept tables of exactly this key, or None."""
    return read_kept("tables", key)


def keep_tables(key: dict, tables: dict) -> bool:
    """Keep the tables for later runs; False where the cache cannot be written."""
    return keep("tables", key, tables)


def this_machine() -> str:
    """A short name of this machine that tells nobody whose it is: the same in every process, another elsewhere.

    A worker that has one of its GPUs (`WORKER_DEVICE`) is a machine of its own: its figures are of that board.
    """
    try:
        number = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except OSError:
        number = ""
    name = hashlib.sha256(f"{socket.gethostname()} {number}".encode()).hexdigest()[:6]
    board = os.environ.get(WORKER_DEVICE)
    return name if board is None else f"{name}-{hashlib.sha256(board.encode()).hexdigest()[:4]}"


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """What the processor's instruction set has, as the system names it; empty where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    named = (line.partition(":") for line in lines)
    return next((set(flags.split()) for key, _, flags in named if key.strip() in ("flags", "Features")), set())


def simd_flags() -> list[str]:
    """Those of `SIMD_FLAGS` that the processor has."""
    flags = cpu_flags()
    return [flag for flag in SIMD_FLAGS if flag in flags]


def processor() -> dict:
    """What latency depends on of the processor: its name, its instructions, and where `ISA_LIMIT` ends them."""
    return {"cpu": cpu_model(), "simd": simd_flags(), "isa_limit": os.environ.get(ISA_LIMIT)}


def within_limit(flags: set[str], limit: str | None) -> set[str]:
    """Those instructions that `ISA_LIMIT` leaves to oneDNN.

    >>> sorted(within_limit({"amx_int8", "avx2", "avx512_vnni"}, "AVX512_CORE_VNNI"))
    ['avx2', 'avx512_vnni']
    """
    level = (limit or "").upper()
    if not level.startswith(("SSE", "AVX")):  # DEFAULT, ALL, and what oneDNN does not know either
        return flags
    return {flag for flag in flags if flag not in _LEVELS or any(word in level for word in _LEVELS[flag])}
