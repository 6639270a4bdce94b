"""Stand-ins for what a machine without a GPU lacks: a program `ncu` and a module `pynvml` that behave like them.

They are no measurement: what they count follows from the files and the time they are given, so that tests can tell
which figure came from where.
"""

import json
import stat
import sys
from pathlib import Path

NCU = '''#!{python}
"""Takes the words that ncu takes, runs the program, writes a report file, and prints it as CSV when asked."""
import json, pathlib, subprocess, sys, time

MODE, LOG, STYLE = {mode!r}, pathlib.Path({log!r}), {style!r}
FLAGS = {{"--nvtx", "-f", "--csv"}}
VALUED = {{"--target-processes", "--cache-control", "--clock-control", "--replay-mode", "--nvtx-include", "--metrics"}}
VALUED |= {{"-o", "--import", "--page", "--print-units"}}


def fail(words, code=1):
    print(f"==ERROR== {{words}}")
    sys.exit(code)


def parse(words):
    options, rest = {{}}, list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word in FLAGS:
            options[word] = True
        elif word in VALUED:
            options[word] = rest.pop(0)
        else:
            fail(f"unrecognised option '{{word}}'")
    return options, rest


def counters(program):
    """Sectors that follow from the size of the weights in the folder that the program is given, and from the turn."""
    turn = sum(json.loads(line)["program"] == program for line in LOG.read_text().splitlines())
    weights = pathlib.Path(program[-1]) / "model.safetensors"
    size = weights.stat().st_size if weights.is_file() else 1_000_000
    misses = size // 32 + 10 * turn
    return {{"hit": 4_000_000 - misses, "miss": misses, "dram": 32 * misses}}


def profile(words):
    options, program = parse(words)
    if MODE == "refused":
        print("==PROF== Connected to process 7")
        fail("ERR_NVGPUCTRPERM - The user does not have permission to access NVIDIA GPU Performance Counters")
    if MODE == "hang":
        time.sleep(600)
    LOG.touch()
    found = counters(program)
    done = subprocess.run(program)
    with LOG.open("a") as log:
        log.write(json.dumps({{"program": program, "options": options, "rc": done.returncode}}) + chr(10))
    if done.returncode:
        fail(f"The application returned an error code ({{done.returncode}}).", done.returncode)
    if MODE == "no kernels":
        print("==WARNING== No kernels were profiled.")
        return
    if MODE.startswith("fails for ") and program[-1].find(MODE.removeprefix("fails for ")) >= 0:
        fail("Failed to profile kernel in process 7", 9)
    pathlib.Path(options["-o"] + ".ncu-rep").write_text(json.dumps(found))
    print("==PROF== Disconnected from process 7")


def show(report):
    found = json.loads(pathlib.Path(report).read_text())
    names = ["lts__t_sectors_op_read_lookup_hit.sum", "lts__t_sectors_op_read_lookup_miss.sum", "dram__bytes_read.sum"]
    cells = [found["hit"], found["miss"], found["dram"]]
    units = ["sector", "sector", "byte"]
    if STYLE == "scaled":
        units[2], cells[2] = "Kbyte", found["dram"] / 1000
    head, row, unit = ["ID", "Process ID", "Kernel Name"], ["0", "7", "void gemm<float>(T1, T2)"], ["", "", ""]
    if STYLE != "old":
        head, row, unit = [*head, "Device", "CC"], [*row, "0", "9.0"], [*unit, "", ""]
        names, cells, units = [*names, "profiler__replayer_passes"], [*cells, 3], [*units, "pass"]
    for line in (head + names, unit + units, row + [f"{{cell:,}}" for cell in cells]):
        print(",".join(f'"{{cell}}"' for cell in line))


words = sys.argv[1:]
if "--version" in words:
    print("NVIDIA (R) Nsight Compute Command Line Profiler\\nVersion 2025.3.1.0 (build 1) (public-release)")
elif "--import" in words:
    show(parse(words)[0]["--import"])
else:
    profile(words)
'''

PYNVML = '''"""A board that takes a constant power from when it was first asked."""
import json, pathlib, time

STATE, MODE, WATTS = pathlib.Path({state!r}), {mode!r}, {watts!r}
NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0
BEGAN, READS = time.monotonic(), [0]


class NVMLError(Exception):
    pass


def note(*event):
    with STATE.open("a") as file:
        file.write(json.dumps(event) + chr(10))


def nvmlInit():
    if MODE == "no driver":
        raise NVMLError("Driver Not Loaded")


def nvmlDeviceGetCount():
    return 1


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetHandleByUUID(uuid):
    return uuid


def nvmlDeviceGetUUID(board):
    return "GPU-0000"


def nvmlDeviceGetMigMode(board):
    return [int(MODE == "divided"), 0]


def nvmlDeviceGetTotalEnergyConsumption(board):
    if MODE == "no counter":
        raise NVMLError("Not Supported")
    READS[0] += 1
    if MODE == "lost" and READS[0] > 12:
        raise NVMLError("GPU is lost")
    since = int(1000 * WATTS * (time.monotonic() - BEGAN))
    return since if MODE == "reset" and READS[0] > 12 else 5_000_000 + since


def nvmlDeviceGetPowerUsage(board):
    return int(1000 * WATTS)


def nvmlDeviceGetClockInfo(board, clock):
    return {{NVML_CLOCK_SM: 1575, NVML_CLOCK_MEM: 2619}}[clock]


def nvmlDeviceGetTemperature(board, sensor):
    return 45


def nvmlDeviceGetCurrentClocksEventReasons(board):
    return 0x4


def nvmlDeviceGetSupportedMemoryClocks(board):
    return [2619, 1593]


def nvmlDeviceGetSupportedGraphicsClocks(board, memory):
    return [1980, 1965, 1590, 1575, 210]


def nvmlDeviceSetGpuLockedClocks(board, low, high):
    if MODE == "no permission":
        raise NVMLError("Insufficient Permissions")
    note("graphics", low, high)


def nvmlDeviceSetMemoryLockedClocks(board, low, high):
    if MODE == "one memory clock":
        raise NVMLError("Not Supported")
    note("memory", low, high)


def nvmlDeviceResetGpuLockedClocks(board):
    note("graphics reset")
    if MODE == "keeps them":
        raise NVMLError("Unknown Error")


def nvmlDeviceResetMemoryLockedClocks(board):
    note("memory reset")
    if MODE == "one memory clock":
        raise NVMLError("Not Supported")
'''


def put_ncu(folder: Path, mode: str = "counts", style: str = "new") -> Path:
    """A program `ncu` in a folder; returns the file to which it writes a line for each program that it ran.

    mode: "counts", "refused", "hang", "no kernels" or "fails for WORD" (in the last word of the program)
    style: of its CSV, "new", "old" (without passes) or "scaled" (bytes in thousands)
    """
    log, path = folder / "ncu.jsonl", folder / "ncu"
    log.unlink(missing_ok=True)
    path.write_text(NCU.format(python=sys.executable, mode=mode, log=str(log), style=style))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return log


def put_pynvml(folder: Path, mode: str = "counts", watts: float = 120.0) -> Path:
    """A module `pynvml` in a folder; returns the file to which it writes what is set.

    mode: "counts", "no driver", "no counter", "lost" or "reset" (after a dozen readings), "no permission",
    "one memory clock", "keeps them" (does not give back the graphics clock) or "divided" (into MIG instances)
    """
    state = folder / "board.jsonl"
    (folder / "pynvml.py").write_text(PYNVML.format(state=str(state), mode=mode, watts=watts))
    return state


def lines_of(file: Path) -> list:
    """What a stand-in has written."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
