"""A run under ncu: the command, the record of what a real run wrote, and the reason where there is none."""

import csv
import io
import signal
import stat
import subprocess
import sys
import time

import psutil
import pytest
from killed_run import wait_until_gone

from icd_lib.errors import MeasureError, ResourceError
from icd_lib.measure.l2 import DRAM_BYTES, HIT, MISS, ncu_kernels
from icd_lib.measure.ncu import PASSES, profile, read_record, shown_command
from icd_lib.paths import project_root
from icd_lib.scrub.text import find_leaks
from icd_lib.storage.atomic import to_json

# Two kernels as ncu 2025.3.1 wrote them on an H200, columns that are not read left out: an fp32 product of torch and a
# clamp, within the range.
COLUMNS = ("ID", "Process Name", "Host Name", "Kernel Name", DRAM_BYTES, HIT, MISS, PASSES)
UNITS = ("", "", "", "", "byte", "sector", "sector", "pass")
GEMM = ("0", "python3.12", "127.0.0.1", "cutlass::Kernel2<cutlass_80_simt_sgemm_256x128_8x4_nn_align1>(T1::Params)")
CLAMP = ("1", "python3.12", "127.0.0.1", "void at::vectorized_elementwise_kernel<4>(int, T2, T3)")
KERNELS = ((*GEMM, "16,487,168", "11,258,256", "986,539", "3"), (*CLAMP, "16,786,688", "2,074", "711,373", "3"))


def write_csv(*rows) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue()


REPORT = "==PROF== Disconnected\n" + write_csv(COLUMNS, UNITS, *KERNELS)

FAKE = """#!{python}
import pathlib, sys
words = sys.argv[1:]
if "--version" in words:
    print("NVIDIA (R) Nsight Compute Command Line Profiler\\nVersion 2025.3.1.0 (build 36398880) (public-release)")
elif "--import" in words:
    print({report!r})
else:
    {action}
"""
HELD = (
    "==ERROR== Profiling failed because a driver resource was unavailable. Ensure that no other tool (like DCGM) is "
    "concurrently collecting profiling data."
)
WRITES = "pathlib.Path(words[words.index('-o') + 1] + '.ncu-rep').write_text('report')"


@pytest.fixture
def fake_ncu(tmp_path):
    """Makes a program that answers as ncu does, with an action of its own where it is to profile."""

    def make(action: str = WRITES, report: str = REPORT) -> str:
        path = tmp_path / "ncu"
        path.write_text(FAKE.format(python=sys.executable, report=report, action=action))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def test_a_record_says_what_was_counted_and_how(fake_ncu):
    record = profile(
        [sys.executable, "/opt/some/where/bench.py", "--arm", "dense"], replay="application", ncu=fake_ncu()
    )
    hits, misses = 11_258_256 + 2_074, 986_539 + 711_373
    assert record.metrics["l2_hit_pct"].value == pytest.approx(100 * hits / (hits + misses))
    assert record.metrics["l2_read_mb"].value == pytest.approx(32 * (hits + misses) / 1e6)
    assert record.metrics["dram_read_mb"].value == pytest.approx(33.273856)
    assert (record.kernels, record.passes, record.version) == (2, 3, "2025.3.1.0")
    assert (record.cache_control, record.clock_control, record.replay) == ("none", "none", "application")


def test_its_command_holds_what_is_asked_for_and_no_folder_of_this_machine(fake_ncu):
    command = profile([sys.executable, "/opt/some/where/bench.py"], ncu=fake_ncu()).command
    assert command[0] == "ncu" and command[-1] == "bench.py" and command[command.index("-o") + 1] == "report"
    assert command[command.index("--nvtx-include") + 1] == "icd_measure/"
    assert command[command.index("--metrics") + 1] == ",".join((HIT, MISS, DRAM_BYTES))
    assert command[command.index("--replay-mode") + 1] == "kernel"
    assert not any("/" in word.removesuffix("/") for word in command)


def test_a_record_gives_no_machine_away():
    assert not find_leaks(
        to_json(read_record(REPORT, ["ncu", "-o", "/home/jane/report"], replay="kernel", version=None))
    )


def test_the_most_passes_of_any_kernel_count_and_none_is_said_to_be_none():
    mixed = write_csv(COLUMNS, UNITS, KERNELS[0], (*KERNELS[1][:-1], "1"))
    assert read_record(mixed, [], replay="kernel", version=None).passes == 3
    without = write_csv(*(row[:-1] for row in (COLUMNS, UNITS, *KERNELS)))
    assert read_record(without, [], replay="kernel", version=None).passes is None
    with pytest.raises(MeasureError, match="'many' for profiler__replayer_passes"):
        read_record(write_csv(COLUMNS, UNITS, (*KERNELS[0][:-1], "many")), [], replay="kernel", version=None)


def test_kernels_are_rows_with_an_id():
    assert [row["ID"] for row in ncu_kernels(REPORT)] == ["0", "1"]


def test_without_ncu_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceError, match="not on the PATH; install"):
        profile(["python"])


@pytest.mark.parametrize(
    ("action", "error", "says"),
    [
        ("print('==ERROR== ERR_NVGPUCTRPERM - no permission'); sys.exit(1)", ResourceError, "run as root"),
        ("print('==ERROR== ERR_NVGPUCTRPERM - no permission')", ResourceError, "run as root"),
        (
            "print('==ERROR== Failed to initialize the profiler: LibraryNotLoaded'); sys.exit(1)",
            ResourceError,
            "driver",
        ),
        (f"print({HELD!r}); sys.exit(9)", ResourceError, "dcgmi profile --pause.*driver resource was unavailable"),
        ("print('==ERROR== DriverResourceUnavailable'); sys.exit(1)", ResourceError, "dcgmi profile --pause"),
        (
            "print('==ERROR== Cuda driver is not compatible with Nsight Compute.'); sys.exit(1)",
            ResourceError,
            "driver does not fit this ncu; update it",
        ),
        ("print('boom', file=sys.stderr); sys.exit(3)", MeasureError, "ended with 3: boom"),
        ("import os; os.kill(os.getpid(), 9)", MeasureError, "ended with 137"),
        ("print('==WARNING== No kernels were profiled.')", MeasureError, "range 'icd_measure' entered.*No kernels"),
    ],
)
def test_what_ncu_refuses_is_no_failure_of_the_program(fake_ncu, action, error, says):
    with pytest.raises(error, match=says):
        profile(["program"], ncu=fake_ncu(action))


@pytest.mark.parametrize("line", [HELD, "==ERROR== Failed to profile kernel in process 7"])
def test_its_error_is_shown_however_much_the_program_says_after_it(fake_ncu, line):
    chatter = "[print('a warning of the program', file=sys.stderr) for _ in range(200)]"
    with pytest.raises((ResourceError, MeasureError)) as caught:
        profile(["program"], ncu=fake_ncu(f"print({line!r}); {chatter}; sys.exit(9)"))
    said = str(caught.value)
    assert line in said and said.endswith("a warning of the program") and len(said) < 1000


def test_a_file_that_is_no_program_cannot_be_started(tmp_path):
    path = tmp_path / "ncu"
    path.write_bytes(b"\x00no program")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ResourceError, match="ncu cannot be started; reinstall nsight-compute.*Exec format error"):
        profile(["program"], ncu=str(path))


# ncu starts a program of its own, says who both are, and goes on for long.
LASTS = (
    "import os, subprocess, time; one = subprocess.Popen(['sleep', '600']); "
    "part = pathlib.Path(words[-1] + '.part'); part.write_text(f'{os.getpid()} {one.pid}'); "
    "part.rename(words[-1]); time.sleep(600)"
)
CALLER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from icd_lib.measure.ncu import profile
profile(["program", sys.argv[2]], ncu=sys.argv[1])
"""


def started(told, seconds: float = 60.0) -> list[psutil.Process]:
    """ncu and its program, once they run."""
    until = time.monotonic() + seconds
    while not told.exists():
        assert time.monotonic() < until, "ncu was not started"
        time.sleep(0.02)
    return [psutil.Process(int(number)) for number in told.read_text().split()]


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(fake_ncu, tmp_path):
    with pytest.raises(MeasureError, match="longer than 3 s"):
        profile(["program", str(tmp_path / "told")], ncu=fake_ncu(LASTS), timeout_s=3.0)
    assert len(told := (tmp_path / "told").read_text().split()) == 2
    wait_until_gone([psutil.Process(int(number)) for number in told if psutil.pid_exists(int(number))])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ncu_and_its_program_do_not_outlive_who_asked_for_the_profile(fake_ncu, tmp_path, number):
    words = [sys.executable, "-c", CALLER, fake_ncu(LASTS), str(tmp_path / "told")]
    caller = subprocess.Popen(words, cwd=project_root(), start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        orphans = started(tmp_path / "told")
        caller.send_signal(number)
        assert caller.wait(timeout=60) != 0
        wait_until_gone(orphans)
    finally:
        caller.kill()


def test_relative_paths_and_words_are_shown_as_they_are():
    assert shown_command(["a/b.py", "--flag", "/x/y/z"]) == ["a/b.py", "--flag", "z"]
